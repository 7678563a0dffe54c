"""What only torchcodec's reader does; the frames are tested in test_reader.py."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streams.errors import MediaError
from streams.pyav.index import index_frames
from streams.torchcodec import TorchCodecReader, reason_of
from tests.streams.ffmpeg import make_video


def test_a_container_on_which_it_is_not_exact_is_refused_by_name(tmp_path: Path):
    with pytest.raises(MediaError, match="torchcodec is not exact on h264 in mpegts; read it with pyav"):
        TorchCodecReader(make_video("transport", tmp_path))


def test_mirrored_frames_are_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="torchcodec does not mirror frames; read it with pyav"):
        TorchCodecReader(make_video("mirrored", tmp_path))


def test_another_number_of_frames_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="torchcodec finds 64 frames of 60; read it with pyav"):
        TorchCodecReader(make_video("vp8_hidden_frames", tmp_path))


def test_frames_at_other_times_are_refused(tmp_path: Path):
    path = make_video("constant", tmp_path)
    index = index_frames(path)
    with pytest.raises(MediaError, match="torchcodec's times are 0.040 s away; read it with pyav"):
        TorchCodecReader(path, replace(index, ticks=index.ticks + 512))


def test_a_file_that_was_replaced_by_no_video_is_refused(tmp_path: Path):
    path = make_video("constant", tmp_path)
    index = index_frames(path)
    path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be decoded"):
        TorchCodecReader(path, index)


def test_damage_is_an_error_when_it_is_read(tmp_path: Path):
    path = make_video("constant", tmp_path)
    index = index_frames(path)
    content = path.read_bytes()
    start, stop = content.index(b"mdat") + 2500, content.index(b"moov") - 4
    path.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    with pytest.raises(MediaError, match="torchcodec cannot (open|decode) it .*; read it with pyav"):
        TorchCodecReader(path, index).frames_at(range(60))


def test_where_it_is_not_installed_every_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(MediaError, match="torchcodec is not installed .*; read it with pyav"):
        TorchCodecReader(make_video("constant", tmp_path))


def test_the_reason_leaves_out_the_places_in_its_source():
    error = RuntimeError("decode, /src/SingleStreamDecoder.cpp:1493, Could not push packet to decoder\nmore")
    assert reason_of(error) == "Could not push packet to decoder"
    assert reason_of(RuntimeError("Requested next frame")) == "Requested next frame"
