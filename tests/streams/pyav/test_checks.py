"""What other libraries are told of a file, and kept from."""

from pathlib import Path

import av
import pytest

from streams.errors import DamageError, MediaError
from streams.pyav.checks import Look, check_frames, look_at
from streams.pyav.index import index_frames
from tests.streams.ffmpeg import ffmpeg, make_video


@pytest.mark.parametrize(
    ("options", "pixel_aspect", "mirrored"),
    [
        ((), 4 / 3, False),
        (("-display_rotation", "90"), 3 / 4, False),
        (("-display_rotation", "180"), 4 / 3, False),
        (("-display_hflip",), 4 / 3, True),
        (("-display_rotation", "90", "-display_hflip"), 3 / 4, True),
    ],
)
def test_turned_pixels_are_as_high_as_they_were_wide(
    options: tuple[str, ...], pixel_aspect: float, mirrored: bool, tmp_path: Path
):
    plain = make_video("non_square", tmp_path / "plain")
    ffmpeg(*options, "-i", plain, "-c", "copy", tmp_path / "a.mp4")
    look = look_at(tmp_path / "a.mp4")
    assert look == Look(track=0, pixel_aspect=look.pixel_aspect, mirrored=mirrored)
    assert look.pixel_aspect == pytest.approx(pixel_aspect)


def test_the_track_is_that_of_the_moving_pictures(tmp_path: Path):
    plain = make_video("constant", tmp_path / "plain")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", "-i", plain, "-map", "0", "-map", "1", tmp_path / "a.mkv")
    assert look_at(tmp_path / "a.mkv").track == 1


def test_a_whole_file_passes(tmp_path: Path):
    path = make_video("open_gop", tmp_path)
    check_frames(path, index_frames(path))


def test_damage_in_the_middle_is_found(tmp_path: Path):
    path = make_video("constant", tmp_path)
    index = index_frames(path)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0)]
    content = bytearray(path.read_bytes())
    start, stop = places[30], places[31]
    assert start is not None
    assert stop is not None
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    with pytest.raises(DamageError, match=r"a\.mp4: cannot be decoded"):
        check_frames(path, index)


def test_another_index_is_noticed(tmp_path: Path):
    path = make_video("constant", tmp_path / "a")
    other = index_frames(make_video("variable_rate", tmp_path / "b"))
    with pytest.raises(DamageError, match="60 frames decode of 38, or not at their times"):
        check_frames(path, other)


def test_a_first_frame_that_does_not_come_is_an_error(tmp_path: Path):
    plain = make_video("transport", tmp_path / "plain")
    # Nothing but what follows the last keyframe.
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", r"noise=drop=lt(n\,50)", tmp_path / "a.ts")
    with pytest.raises(MediaError, match="the first frames cannot be decoded; write it anew with ffmpeg"):
        look_at(tmp_path / "a.ts")
