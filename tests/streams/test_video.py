from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.manifest import Entry
from streams.settings import ClipSettings
from streams.video import of_entry, on_grid, status_of


def index_of(ticks: list[int]) -> FrameIndex:
    return FrameIndex(np.array(ticks), np.array(ticks[:1]), Fraction(1, 1000), Fraction(0), "mov", "h264")


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=40, unique=True), st.sampled_from([7.0, 10.0, 24.0, 29.97]))
def test_the_frame_shown_at_an_instant_is_the_last_that_has_begun(ticks: list[int], rate: float):
    index = index_of(sorted(ticks))
    assume(max(ticks) - min(ticks) >= 200)
    video = on_grid(Path("a.mp4"), index, "pyav", ClipSettings(rate, num_frames=1))
    instants = (video.first + np.arange(video.num_frames)) / rate
    for instant, shown in zip(instants, video.shown_at(instants).tolist(), strict=True):
        begun = [number for number, second in enumerate(index.seconds) if second <= instant + 1e-4]
        assert shown == begun[-1]


def test_the_last_frame_is_shown_as_long_as_frames_usually_are():
    video = on_grid(Path("a.mp4"), index_of([0, 100, 200, 300]), "pyav", ClipSettings(10.0, num_frames=4))
    assert (video.first, video.num_frames) == (0, 4)
    with pytest.raises(MediaError, match=r"a\.mp4: too short \(0\.40 s, a clip needs 0\.50 s\)"):
        on_grid(Path("a.mp4"), index_of([0, 100, 200, 300]), "pyav", ClipSettings(10.0, num_frames=5))


def test_sound_is_stretched_as_the_scan_found_it_to_drift():
    entry = Entry("a.mp4", reader="pyav", index=index_of([0, 100]), sound_seconds=20.0, sound_drift_seconds=0.1)
    assert of_entry(entry, ClipSettings(num_frames=1)).drift == pytest.approx(0.005)
    plain = Entry("a.mp4", reader="pyav", index=index_of([0, 100]))
    assert of_entry(plain, ClipSettings(num_frames=1)).drift == 0.0


def test_the_reader_that_the_scan_chose_is_taken_unless_another_is_asked_for():
    entry = Entry("a.mp4", reader="decord", index=index_of([0, 100]))
    assert of_entry(entry, ClipSettings(num_frames=1)).reader == "decord"
    assert of_entry(entry, ClipSettings(num_frames=1, reader="pyav")).reader == "pyav"


def test_the_status_of_a_file_changes_with_it(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    before = status_of(path)
    assert before == status_of(path)
    path.write_bytes(b"other")
    assert before != status_of(path)
    with pytest.raises(MediaError, match=r"gone\.mp4: no such file"):
        status_of(tmp_path / "gone.mp4")
