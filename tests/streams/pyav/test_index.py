from pathlib import Path

import pytest
import torch

from streams.errors import MediaError
from streams.pyav.index import in_order, index_frames
from streams.pyav.pictures import PyAVReader
from streams.pyav.writer import write_video
from streams.settings import EncoderSettings
from tests.streams.ffmpeg import ffmpeg, make_video


def test_the_keyframes_are_as_far_apart_as_asked(tmp_path: Path):
    frames = torch.full((24, 3, 32, 32), 90, dtype=torch.uint8)
    for gop_frames in (4, 24):
        write_video(tmp_path / "a.mp4", frames, 10.0, encoder=EncoderSettings(gop_frames=gop_frames, num_b_frames=0))
        assert len(index_frames(tmp_path / "a.mp4").keys) == 24 // gop_frames


def test_frames_that_come_after_their_time_are_left_out():
    assert in_order([0, 1, 3, 2, 3, 4, 4, 5]) == [0, 1, 3, 4, 5]


def test_a_stray_frame_is_left_out_and_many_are_an_error(tmp_path: Path):
    plain = make_video("transport", tmp_path / "plain")
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", r"noise=drop=gt(n\,0)", tmp_path / "one.ts")
    # The first keyframe once more, as where a recording is joined from parts.
    (tmp_path / "stray.ts").write_bytes(plain.read_bytes() + (tmp_path / "one.ts").read_bytes())
    index = index_frames(tmp_path / "stray.ts")
    assert (index.decoded, len(index.ticks), len(index.keys)) == (True, 60, 1)
    (tmp_path / "twice.ts").write_bytes(plain.read_bytes() * 2)
    with pytest.raises(MediaError, match="the times of 60 frames run backwards; write it anew with ffmpeg"):
        index_frames(tmp_path / "twice.ts")


def test_frames_without_times_are_an_error(tmp_path: Path):
    with pytest.raises(MediaError, match="60 frames, 47 of them with a time; write it anew with ffmpeg"):
        index_frames(make_video("without_times", tmp_path))


def test_a_file_without_a_keyframe_is_an_error(tmp_path: Path):
    plain = make_video("transport", tmp_path / "plain")
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", r"noise=drop=key+gt(n\,11)", tmp_path / "a.ts")
    with pytest.raises(MediaError, match="has no keyframe from which it could be decoded; leave it out"):
        index_frames(tmp_path / "a.ts")


def test_the_codec_has_the_same_name_whichever_library_decodes_it(tmp_path: Path):
    assert index_frames(make_video("av1", tmp_path)).codec == "av1"


def test_a_table_of_places_that_is_wrong_is_not_believed(tmp_path: Path):
    path = make_video("mpeg4_avi", tmp_path)
    with PyAVReader(path) as reader:
        right = reader.frames_at(range(60))
    content = bytearray(path.read_bytes())
    # Entries of 16 bytes: name, flags, place, size. From the 11th on, those of two frames later.
    table = content.rindex(b"idx1") + 8
    for entry in range(10, 58):
        place = table + 16 * entry
        content[place + 8 : place + 16] = content[place + 40 : place + 48]
    path.write_bytes(content)
    assert index_frames(path).keys.tolist() == [0]
    with PyAVReader(path) as reader:
        for index in (50, 30, 59, 13):
            assert torch.equal(reader.frames_at([index])[0], right[index])


def test_frames_that_all_come_before_the_first_keyframe_are_no_video(ours: Path, monkeypatch: pytest.MonkeyPatch):
    # As spliced edit lists tell: the keyframe is hidden, and what is shown has earlier times.
    monkeypatch.setattr("streams.pyav.index.times_of_packets", lambda source, track: ([10], {50: 0}))
    with pytest.raises(MediaError, match="all its 1 frames come before the first keyframe"):
        index_frames(ours)
