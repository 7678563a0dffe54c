import pytest

from streams.closing import Closing


class Held(Closing):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_with_closes_at_its_end_and_lets_errors_out():
    with Held() as held:
        assert isinstance(held, Held)
        assert not held.closed
    assert held.closed
    with pytest.raises(KeyError), Held() as held:
        raise KeyError
    assert held.closed


def test_a_class_without_close_says_so():
    with pytest.raises(NotImplementedError), Closing():
        pass
