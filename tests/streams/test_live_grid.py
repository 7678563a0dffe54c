from bisect import bisect_right

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from streams.live_grid import GridFrame, Heard, LiveCounts, LiveGrid
from streams.settings import ClipSettings
from streams.video import TINY_SECONDS

SETTINGS = ClipSettings(frames_per_second=10.0, height=2, width=2, sample_hz=1000)


def picture(number: int) -> Tensor:
    return torch.full((3, 2, 2), number, dtype=torch.uint8)


def grid(has_sound: bool = False, lag: float = 0.5, settings: ClipSettings = SETTINGS) -> LiveGrid:
    made = LiveGrid(settings, lag, LiveCounts())
    made.begin(has_sound)
    return made


def shown(frames: list[GridFrame]) -> list[tuple[int, int]]:
    return [(frame.number, int(frame.frame[0, 0, 0])) for frame in frames]


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.integers(0, 2000),
    st.sampled_from([7.5, 10.0, 24.0, 30000 / 1001]),
)
def test_every_instant_shows_the_frame_that_a_search_over_the_whole_file_finds(
    steps: list[int], begin: int, rate: float
):
    seconds = (begin + np.cumsum(steps)) / 1000
    live, found = grid(settings=ClipSettings(frames_per_second=rate, height=2, width=2)), []
    for number, instant in enumerate(seconds.tolist()):
        live.picture(instant, lambda number=number: picture(number))
        found += live.ready()
    live.interrupt()
    found += live.ready(final=True)
    # As `VideoSource` does it, which knows the whole file.
    stop = seconds[-1] + (np.median(np.diff(seconds)) if len(seconds) > 1 else 1 / rate)
    numbers = range(int(np.ceil((seconds[0] - TINY_SECONDS) * rate)), int(np.ceil((stop - TINY_SECONDS) * rate)))
    wanted = [(n, max(0, bisect_right(seconds.tolist(), n / rate + TINY_SECONDS) - 1)) for n in numbers]
    assert shown(found) == wanted


def test_only_frames_that_are_shown_are_scaled():
    live, scaled = grid(), []
    for number in range(50):
        live.picture(number * 0.01, lambda number=number: (scaled.append(number), picture(number))[1])
    assert scaled == [0, 10, 20, 30, 40]


def test_a_frame_waits_for_its_sound_and_owns_it_from_its_time_on():
    live = grid(has_sound=True)
    sound = np.arange(500, dtype=np.float32)
    for number in range(4):
        live.picture(number * 0.1, lambda number=number: picture(number))
    live.sound(0, sound[:199])
    assert [frame.number for frame in live.ready()] == [0]
    live.sound(199, sound[199:])
    found = live.ready()
    assert [frame.number for frame in found] == [1, 2]
    assert found[0].sound is not None
    assert found[0].sound.tolist() == sound[100:200].tolist()
    assert live.counts.silent_frames == 0


def test_a_frame_whose_sound_does_not_come_is_silent_and_counted():
    live, found = grid(has_sound=True, lag=0.5), []
    live.sound(0, np.ones(250, dtype=np.float32))
    for number in range(10):
        live.picture(number * 0.1, lambda number=number: picture(number))
        found += live.ready()
    assert [frame.number for frame in found] == [0, 1, 2, 3]
    assert [float(frame.sound.sum()) for frame in found if frame.sound is not None] == [100, 100, 50, 0]
    assert (live.counts.silent_frames, live.counts.frames) == (2, 4)


def test_a_lost_piece_of_sound_is_silence_and_the_rest_stays_at_its_time():
    live = grid(has_sound=True)
    live.sound(0, np.ones(100, dtype=np.float32))
    live.sound(150, np.ones(150, dtype=np.float32))
    for number in range(4):
        live.picture(number * 0.1, lambda number=number: picture(number))
    found = [frame.sound for frame in live.ready()]
    assert [float(sound.sum()) for sound in found if sound is not None] == [100, 50, 100]


def test_sound_far_ahead_of_the_pictures_fills_no_memory():
    live = grid(has_sound=True)
    live.sound(10**9, np.ones(10, dtype=np.float32))
    assert live.heard.stop == 0


def test_after_an_interruption_the_next_frame_is_shown_from_its_own_time_on():
    live, found = grid(), []
    for number, seconds in enumerate((0.0, 0.1, 0.2)):
        live.picture(seconds, lambda number=number: picture(number))
    live.interrupt()
    live.picture(0.95, lambda: picture(9))
    live.interrupt()
    found += live.ready(final=True)
    assert shown(found) == [(0, 0), (1, 1), (2, 2), (10, 9)]


def test_a_new_connection_begins_where_it_is_told():
    live = grid()
    live.picture(0.0, lambda: picture(0))
    live.interrupt()
    live.begin(has_sound=False, first=5)
    live.picture(0.2, lambda: picture(1))
    live.picture(0.7, lambda: picture(2))
    assert shown(live.ready(final=True)) == [(0, 0), (5, 1), (6, 1)]


def test_what_was_heard_is_cut_anywhere_and_forgotten():
    heard = Heard()
    heard.add(5, np.arange(5, 15, dtype=np.float32))
    assert heard.cut(3, 8).tolist() == [0, 0, 5, 6, 7]
    heard.forget(10)
    heard.add(8, np.full(4, 1, dtype=np.float32))  # what is forgotten does not come back; the rest is replaced
    assert (heard.start, heard.stop) == (10, 12)
    assert heard.cut(9, 13).tolist() == [0, 1, 1, 0]
