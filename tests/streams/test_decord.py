"""What only decord's reader does; the frames are tested in test_reader.py."""

from pathlib import Path

import pytest
import torch

from streams.decord import DecordReader, reason_of
from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from streams.pyav.writer import write_video
from tests.streams.ffmpeg import ffmpeg, make_video


def test_both_readers_give_the_same_frames_of_our_own_videos(tmp_path: Path):
    frames = torch.randint(0, 256, (12, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "a.mp4", frames.expand(12, 3, 32, 64).contiguous(), 20.0)
    with DecordReader(tmp_path / "a.mp4") as ours, PyAVReader(tmp_path / "a.mp4") as theirs:
        away = ours.frames_at(range(12)).int() - theirs.frames_at(range(12)).int()
    assert away.abs().max() <= 4


def test_a_codec_on_which_it_is_not_exact_is_refused_by_name(tmp_path: Path):
    with pytest.raises(MediaError, match="decord is not exact on mpeg4 in avi; read it with pyav"):
        DecordReader(make_video("mpeg4_avi", tmp_path))


def test_a_file_without_pictures_is_refused(tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="has no pictures"):
        DecordReader(tmp_path / "a.mp4")


def test_the_reason_leaves_out_the_places_in_decords_source():
    error = RuntimeError("[15:46:08] /github/src/video_reader.cc:486: Error: av_read_frame failed\nStack trace")
    assert reason_of(error) == "Error: av_read_frame failed"


def test_times_below_zero_are_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="decord is not exact on times below zero; read it with pyav"):
        DecordReader(make_video("negative_start", tmp_path))


def test_mirrored_frames_are_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="decord does not mirror frames; read it with pyav"):
        DecordReader(make_video("mirrored", tmp_path))
