import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.cache.windows import Windows
from worldmodel.errors import SettingsError

SIZES = st.integers(2, 30).flatmap(lambda clip: st.tuples(st.just(clip), st.integers(2, clip)))


@given(SIZES, st.integers(0, 2**32))
def test_the_views_of_a_window_hold_the_same_frames(sizes: tuple[int, int], seed: int):
    windows = Windows(*sizes)
    frames = list(range(windows.clip_frames))
    generator = np.random.default_rng(seed)
    for window in range(windows.per_clip):
        start = windows.start_of(window, generator)
        here, backwards, fast = windows.parts(start)
        assert frames[here] == list(range(start, start + windows.num_frames))
        assert frames[::-1][backwards] == frames[here][::-1]
        assert frames[: len(frames) // 2 * 2 : 2][fast] == frames[here][: windows.num_frames // 2 * 2 : 2]


def test_a_drawn_window_may_start_at_any_even_frame_at_which_it_fits():
    generator = np.random.default_rng(0)
    assert {Windows(9, 4).start_of(0, generator) for _ in range(100)} == {0, 2, 4}
    assert {Windows(9, 9).start_of(0, generator) for _ in range(10)} == {0}


def test_without_drawing_the_windows_cover_the_clip_and_the_generator_stays_as_it_is():
    generator = np.random.default_rng(0)
    windows = Windows(40, 16, random_start=False)
    assert [windows.start_of(window, generator) for window in range(windows.per_clip)] == [0, 24]
    assert generator.integers(1000) == np.random.default_rng(0).integers(1000)


@pytest.mark.parametrize("num_frames", [1, 9])
def test_a_window_that_does_not_fit_is_refused(num_frames: int):
    with pytest.raises(SettingsError, match=f"num_frames {num_frames} does not fit: the clips of here have 8 frames; "):
        Windows(8, num_frames).check("here", "think again")
    with pytest.raises(SettingsError, match="ask for 2 to 8, or think again"):
        Windows(8, num_frames).check("here", "think again")
    Windows(8, 8).check("here", "think again")
