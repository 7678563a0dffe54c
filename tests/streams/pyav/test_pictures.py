"""What only PyAV's reader does; that its frames are right is tested in tests/streams/test_reader.py."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from streams.errors import MediaError
from streams.index import FrameIndex
from streams.pyav.index import index_frames
from streams.pyav.pictures import PyAVReader, draft_of
from streams.pyav.writer import write_video
from streams.settings import EncoderSettings
from tests.streams.ffmpeg import ffmpeg, make_video, numbered_frames

REAL = Path(__file__).resolve().parents[3] / "../shared/videos/odd/imageio_cockatoo_yuv444.mp4"


def test_frames_at_random_are_those_in_order_bit_for_bit(ours: Path):
    with PyAVReader(ours) as reader:
        ordered = reader.frames_at(range(48))
        generator = np.random.default_rng(0)
        for _ in range(40):
            indices = generator.integers(0, 48, generator.integers(1, 6)).tolist()
            assert torch.equal(reader.frames_at(indices), ordered[indices])


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
def test_frames_left_out_of_decoding_change_no_other(ours: Path, stride: int):
    with PyAVReader(ours) as reader, PyAVReader(ours) as other:
        ordered = other.frames_at(range(48))
        for start in range(0, 48, 8):
            indices = list(range(start, min(start + 8, 48), stride))
            assert torch.equal(reader.frames_at(indices), ordered[indices])


def test_consecutive_calls_go_on_decoding(ours: Path, monkeypatch: pytest.MonkeyPatch):
    seeks = []
    seek = PyAVReader.seek
    monkeypatch.setattr(PyAVReader, "seek", lambda *arguments: seeks.append(1) or seek(*arguments))
    with PyAVReader(ours) as reader:
        for start in range(0, 48, 4):
            reader.frames_at(range(start, start + 4))
        assert not seeks
        reader.frames_at([5])
        assert not seeks  # the first keyframe is the start of the file
        reader.frames_at([40])
        assert len(seeks) == 1


def test_small_frames_are_the_same_whatever_was_read_before(ours: Path):
    with PyAVReader(ours) as reader, PyAVReader(ours) as other:
        small = other.frames_at(range(48), (16, 24))
        assert torch.equal(reader.frames_at([20, 21], (16, 24)), small[20:22])
        full = reader.frames_at([21])
        assert torch.equal(reader.frames_at([21, 30], (16, 24)), small[[21, 30]])
    with PyAVReader(ours) as reader:
        assert torch.equal(reader.frames_at([21]), full)


@pytest.mark.parametrize(("size", "draft"), [((32, 48), "noref"), ((16, 24), "bidir")])
def test_small_frames_are_within_a_fraction_of_a_level_of_those_fully_decoded(
    size: tuple[int, int], draft: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.mp4"
    frames = torch.from_numpy(numbered_frames(48)).permute(0, 3, 1, 2).contiguous()
    write_video(path, frames, 20.0, encoder=EncoderSettings(crf=26, gop_frames=12, num_b_frames=3))
    with PyAVReader(path, size=size) as reader:
        drafted = reader.frames_at(range(48), size).float()
        assert reader.draft == draft
    monkeypatch.setattr("streams.pyav.pictures.draft_of", lambda *_: "default")
    with PyAVReader(path) as reader:
        full = reader.frames_at(range(48), size).float()
    assert not torch.equal(drafted, full)
    assert 10 * np.log10(255**2 / float((drafted - full).square().mean())) > 50


def test_the_size_given_at_opening_saves_opening_again(ours: Path, monkeypatch: pytest.MonkeyPatch):
    with PyAVReader(ours, size=(16, 24)) as reader:
        monkeypatch.setattr(PyAVReader, "restart", lambda *_: pytest.fail("opened anew"))
        assert reader.frames_at([0, 30], (16, 24)).shape == (2, 3, 16, 24)


def test_b_frames_are_drafted_only_where_a_keyframe_soon_ends_what_adds_up():
    def index(group: int) -> FrameIndex:
        ticks = np.arange(100)
        return FrameIndex(ticks, ticks[::group], Fraction(1, 30), Fraction(0), "mov", "h264")

    assert index(12).longest_group == 12
    assert index(60).longest_group == 60
    assert draft_of((128, 128), (480, 854), index(12)) == "bidir"
    assert draft_of((128, 128), (480, 854), index(60)) == "noref"
    assert draft_of((128, 128), (256, 256), index(12)) == "noref"
    assert draft_of((128, 128), (200, 854), index(12)) == "default"
    assert draft_of((128, 128), (480, 854), index(60), pixel_aspect=0.25) == "default"
    assert draft_of(None, (480, 854), index(12)) == "default"


def test_a_given_index_is_used(ours: Path):
    index = index_frames(ours)
    with PyAVReader(ours, index) as reader, PyAVReader(ours) as other:
        assert reader.index is index
        assert torch.equal(reader.frames_at([30]), other.frames_at([30]))


def test_a_seek_in_a_transport_stream_finds_the_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_video("transport", tmp_path)
    with PyAVReader(path) as reader, PyAVReader(path) as other:
        ordered = other.frames_at(range(60))
        monkeypatch.setattr(PyAVReader, "restart", lambda *_: pytest.fail("read from the start"))
        for index in (59, 30, 50, 29, 40):
            assert torch.equal(reader.frames_at([index])[0], ordered[index])


def test_frames_that_are_called_keyframes_and_are_not_do_no_harm(tmp_path: Path):
    path = make_video("mpeg4", tmp_path / "plain")
    with av.open(str(path)) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.is_keyframe, packet.stream = True, track
                target.mux(packet)
    with PyAVReader(path) as right, PyAVReader(tmp_path / "a.mp4") as reader:
        assert (len(right.index.keys), len(reader.index.keys)) == (6, 60)
        for index in (40, 7, 33, 20):
            assert torch.equal(reader.frames_at([index]), right.frames_at([index]))


def test_mirrored_frames_are_mirrored_back(ours: Path, tmp_path: Path):
    ffmpeg("-display_hflip", "-i", ours, "-c", "copy", tmp_path / "a.mp4")
    with PyAVReader(ours) as right, PyAVReader(tmp_path / "a.mp4") as reader:
        assert torch.equal(reader.frames_at([3]), right.frames_at([3]).flip(-1))


def test_a_call_at_random_sends_no_packet_after_the_last_one_that_it_needs(ours: Path, monkeypatch: pytest.MonkeyPatch):
    sent: list[int | None] = []
    choose = PyAVReader.choose
    monkeypatch.setattr(
        PyAVReader, "choose", lambda *arguments: (sent.append(each.pts) or each for each in choose(*arguments))
    )
    with PyAVReader(ours) as reader, PyAVReader(ours) as other:
        ordered = other.frames_at(range(48))
        for start in (40, 27, 14):
            sent.clear()
            assert torch.equal(reader.frames_at(range(start, start + 4)), ordered[start : start + 4])
            wanted = set(reader.index.ticks[start : start + 4].tolist())
            # The last packet is the empty one at which the decoder gives what it holds back.
            assert sent[-1] is None
            assert sent[-2] in wanted
            assert wanted <= set(sent)


def test_reading_on_after_a_call_at_random_goes_back_once(ours: Path, monkeypatch: pytest.MonkeyPatch):
    jumps: list[str] = []
    with PyAVReader(ours) as reader, PyAVReader(ours) as other:
        ordered = other.frames_at(range(48))
        reader.frames_at(range(20, 24))
        for name in ("seek", "restart"):
            jump = getattr(PyAVReader, name)
            monkeypatch.setattr(PyAVReader, name, lambda *arguments, jump=jump: jumps.append("") or jump(*arguments))
        for start in range(24, 48, 4):
            assert torch.equal(reader.frames_at(range(start, start + 4)), ordered[start : start + 4])
        assert len(jumps) == 1


@pytest.mark.skipif(not REAL.exists(), reason="the folder of real footage is not beside the project")
def test_frames_after_a_seek_are_whole_where_only_a_decode_from_the_start_makes_them_so():
    with PyAVReader(REAL) as reader, PyAVReader(REAL) as other:
        ordered = other.frames_at(range(len(other.seconds)), (48, 64)).float()
        for place in (len(ordered) - 1, 100, 200):
            assert float((reader.frames_at([place], (48, 64))[0].float() - ordered[place]).abs().mean()) < 0.1


def test_a_file_that_is_opened_anew_for_another_size_decodes_its_first_frame_before_it_seeks(
    ours: Path, monkeypatch: pytest.MonkeyPatch
):
    with PyAVReader(ours) as reader:
        order: list[str] = []
        advance, seek = PyAVReader.advance, PyAVReader.seek
        monkeypatch.setattr(PyAVReader, "advance", lambda *given: (order.append("advance"), advance(*given))[1])
        monkeypatch.setattr(PyAVReader, "seek", lambda *given: (order.append("seek"), seek(*given))[1])
        reader.frames_at([40], (16, 24))
    assert order[:2] == ["advance", "seek"]


def test_a_file_that_is_gone_for_a_while_is_read_again(ours: Path, tmp_path: Path):
    path = tmp_path / "a.mp4"
    shutil.copy(ours, path)
    with PyAVReader(ours) as other, PyAVReader(path) as reader:
        expected = other.frames_at([40])
        path.rename(tmp_path / "elsewhere.mp4")
        with pytest.raises(FileNotFoundError):
            reader.restart()
        for place in (0, 40):
            with pytest.raises(MediaError):
                reader.frames_at([place])
        (tmp_path / "elsewhere.mp4").rename(path)
        assert torch.equal(reader.frames_at([40]), expected)
