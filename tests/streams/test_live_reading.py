from threading import Timer
from time import monotonic

import av
import pytest
import torch

from streams.errors import MediaError
from streams.live_grid import GridFrame
from streams.live_reading import LiveReading
from streams.pyav.live import Picture
from streams.settings import ClipSettings, LiveSettings

SETTINGS = ClipSettings(frames_per_second=10.0, height=2, width=2)


def reading(monkeypatch: pytest.MonkeyPatch, **live: object) -> tuple[LiveReading, list[GridFrame]]:
    """A reading of nothing, and what it gives."""
    given: list[GridFrame] = []
    made = LiveReading("tcp://nowhere:1", SETTINGS, LiveSettings(**live), given.extend)  # type: ignore[arg-type]
    made.grid.begin(has_sound=False)
    return made, given


def take(made: LiveReading, seconds: list[float], again: bool = False) -> None:
    for number, instant in enumerate(seconds):
        picture = Picture(instant, av.VideoFrame(2, 2, "rgb24"))
        made.take(picture, again and number == 0, lambda: torch.zeros(3, 2, 2, dtype=torch.uint8))
        made.give(made.grid.ready())


def test_pictures_out_of_order_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    made, given = reading(monkeypatch)
    take(made, [0.0, 0.1, 0.1, 0.05, 0.2, 0.3])
    assert [frame.number for frame in given] == [0, 1, 2]
    assert (made.counts.late_frames, made.counts.gaps) == (2, 0)


@pytest.mark.parametrize("again", [False, True])
def test_a_clock_that_begins_anew_goes_on_after_one_instant_at_least(again: bool, monkeypatch: pytest.MonkeyPatch):
    made, given = reading(monkeypatch)
    take(made, [5.0, 5.1, 5.2])
    take(made, [0.03, 0.13, 0.23, 0.33], again)
    made.end_clip()
    numbers = [frame.number for frame in given]
    assert numbers[:3] == [50, 51, 52]
    later = numbers[3:]
    assert later == list(range(later[0], later[0] + 4))
    assert later[0] >= 54
    assert made.counts.gaps == 1


def test_the_time_without_a_connection_is_left_out(monkeypatch: pytest.MonkeyPatch):
    made, given = reading(monkeypatch)
    take(made, [0.0, 0.1])
    made.last_arrival = monotonic() - 30.0
    take(made, [0.0, 0.1], again=True)
    made.end_clip()
    assert [frame.number for frame in given][:2] == [0, 1]
    assert given[2].number == pytest.approx(301, abs=20)


def test_the_delay_is_what_the_promptest_picture_did_not_take(monkeypatch: pytest.MonkeyPatch):
    made, _ = reading(monkeypatch)
    take(made, [1.0])
    made.promptest -= 7.0  # as if it had come 7 seconds earlier
    assert 7.0 <= made.delay_of(1.0) == pytest.approx(7.0, abs=2.0)
    assert made.delay_of(1000.0) == 0.0


@pytest.mark.parametrize("endless", [False, True])
def test_every_failure_in_a_row_waits_twice_as_long_and_one_success_begins_anew(
    endless: bool, monkeypatch: pytest.MonkeyPatch
):
    made, _ = reading(monkeypatch, num_reconnects=3, backoff_seconds=0.1, endless=endless)
    waits: list[float] = []
    monkeypatch.setattr(made.stop, "wait", waits.append)
    outcomes = iter(["works", "fails", "fails", "works", "fails", "fails", "fails"])

    def connect() -> None:
        made.connected = True
        if next(outcomes) == "works":
            made.counts.frames += 1
        if not endless:
            raise MediaError("broken")

    monkeypatch.setattr(made, "read_connection", connect)
    with pytest.raises(
        MediaError, match="tcp://nowhere:1: has ended, and does not begin again" if endless else "broken"
    ):
        made.run()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.2, 0.4])
    assert made.counts.reconnects == 6


def test_no_wait_is_longer_than_half_a_minute(monkeypatch: pytest.MonkeyPatch):
    made, _ = reading(monkeypatch, num_reconnects=12, backoff_seconds=1.0)
    waits: list[float] = []
    monkeypatch.setattr(made.stop, "wait", waits.append)
    made.connected = True

    def connect() -> None:
        raise MediaError("broken")

    monkeypatch.setattr(made, "read_connection", connect)
    with pytest.raises(MediaError, match="broken"):
        made.run()
    assert max(waits) == 30.0
    assert len(waits) == 12


def test_a_wait_ends_when_it_is_stopped(monkeypatch: pytest.MonkeyPatch):
    made, _ = reading(monkeypatch, backoff_seconds=1000.0)
    made.connected = True

    def connect() -> None:
        raise MediaError("broken")

    monkeypatch.setattr(made, "read_connection", connect)
    Timer(0.05, made.stop.set).start()
    made.run()
    assert made.counts.reconnects == 1
