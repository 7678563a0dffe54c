from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.settings import SelectionSettings
from streams.starts import starts_of
from streams.video import Video

INDEX = FrameIndex(np.arange(5), np.arange(1), Fraction(1, 10), Fraction(0), "mov", "h264")


def video_of(first: int, num_frames: int, cuts: list[int] | None = None) -> Video:
    found = None if cuts is None else np.array(cuts, dtype=np.int64)
    return Video(Path("a.mp4"), INDEX, first, num_frames, "pyav", cuts=found)


@given(st.integers(-5, 50), st.integers(1, 400), st.integers(1, 40))
def test_spread_clips_cover_the_video_with_as_few_as_needed(first: int, length: int, num_frames: int):
    length = max(length, num_frames)
    found = starts_of(video_of(first, length), num_frames, SelectionSettings())
    assert len(found.starts) == -(-length // num_frames)
    covered = {start + offset for start in found.starts.tolist() for offset in range(num_frames)}
    assert covered == set(range(first, first + length))
    assert (found.lows >= first).all()
    assert (found.lows <= found.starts).all()
    assert (found.starts <= found.highs).all()
    assert (found.highs <= first + length - num_frames).all()


@given(st.integers(8, 400), st.integers(1, 6))
def test_per_video_takes_as_many_of_every_video_anywhere_in_it(length: int, num_clips: int):
    found = starts_of(video_of(3, length), 8, SelectionSettings("per_video", clips_per_video=num_clips))
    assert len(found.starts) == num_clips
    assert set(found.lows.tolist()) == {3}
    assert set(found.highs.tolist()) == {3 + length - 8}
    assert ((found.starts >= 3) & (found.starts <= 3 + length - 8)).all()


def test_sliding_takes_one_at_every_stride():
    found = starts_of(video_of(2, 20), 8, SelectionSettings("sliding", stride_frames=5))
    assert found.starts.tolist() == [2, 7, 12]
    assert found.lows.tolist() == found.highs.tolist() == [2, 7, 12]


@given(st.lists(st.integers(0, 120), max_size=8), st.integers(20, 120))
def test_no_clip_reaches_over_a_cut_and_every_long_scene_is_covered(cuts: list[int], length: int):
    edges = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    scenes = [range(begin, end) for begin, end in pairwise(edges) if end - begin >= 8]
    video = video_of(0, length, sorted(cuts))
    if not scenes:
        with pytest.raises(MediaError, match="scenes is as long as a clip; leave it out"):
            starts_of(video, 8, SelectionSettings("scenes"))
        return
    found = starts_of(video, 8, SelectionSettings("scenes"))
    inside = set()
    for start in {*found.starts.tolist(), *found.lows.tolist(), *found.highs.tolist()}:
        assert any(start in scene and start + 7 in scene for scene in scenes)
    for start in found.starts.tolist():
        inside |= set(range(start, start + 8))
    assert inside == {frame for scene in scenes for frame in scene}


def test_without_known_cuts_scenes_are_refused():
    with pytest.raises(MediaError, match=r"a\.mp4: its scene cuts are not known; give a manifest"):
        starts_of(video_of(0, 20), 8, SelectionSettings("scenes"))


@pytest.mark.parametrize("name", ["stride_frames", "clips_per_video", "block_clips"])
def test_numbers_below_one_are_refused(name: str):
    with pytest.raises(ValueError, match="must be 1 at least"):
        starts_of(video_of(0, 20), 8, replace(SelectionSettings(), **{name: 0}))
