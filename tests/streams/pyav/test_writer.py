from pathlib import Path

import numpy as np
import pytest
import torch

from streams.pyav.sound import read_sound
from streams.pyav.writer import VideoWriter, write_video
from tests.streams.ffmpeg import number_of, numbered_frames, reference
from tests.streams.pyav.clicks import HZ


def test_a_written_video_is_what_ffmpeg_reads(ours: Path):
    frames, seconds = reference(ours, 64, 96)
    np.testing.assert_allclose(seconds, np.arange(48) / 20.0, atol=1e-6)
    assert [number_of(frame) for frame in frames] == list(range(48))
    away = np.abs(frames.astype(int) - numbered_frames(48).transpose(0, 3, 1, 2))
    assert away.mean() < 4.0


def test_a_written_video_leaves_no_partial_file(ours: Path):
    assert [path.name for path in ours.parent.iterdir()] == ["a.mp4"]


def test_a_video_without_sound_has_no_sound_track(tmp_path: Path):
    write_video(tmp_path / "a.mp4", torch.zeros(3, 3, 16, 32, dtype=torch.uint8), 10.0)
    assert read_sound(tmp_path / "a.mp4", 0.0, 0.3, HZ) is None


def test_pixels_are_repeated_on_request(tmp_path: Path):
    frames = torch.zeros(2, 3, 15, 16, dtype=torch.uint8)
    frames[:, :, 5:10, 4:8] = 200
    write_video(tmp_path / "a.mp4", frames, 10.0, factor=4)
    shown, _ = reference(tmp_path / "a.mp4", 60, 64)
    expected = frames.repeat_interleave(4, 2).repeat_interleave(4, 3).numpy()
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 4.0


def test_odd_sizes_cannot_be_written(tmp_path: Path):
    with pytest.raises(ValueError, match="15x16: height and width must be even"):
        write_video(tmp_path / "a.mp4", torch.zeros(3, 3, 15, 16, dtype=torch.uint8), 10.0)


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_what_comes_in_parts_is_written_as_what_comes_at_once(container: str, tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (9, 3, 16, 32), dtype=torch.uint8, generator=generator)
    sound = torch.sin(torch.arange(7200) / 9)
    read = []
    for name, num_parts in (("whole", 1), ("parts", 5)):
        path = tmp_path / name
        with VideoWriter(path, container, (16, 32), 10.0, 8000) as writer:
            for more, heard in zip(frames.chunk(num_parts), sound.tensor_split(num_parts), strict=True):
                writer.add_frames(more)
                writer.add_sound(heard)
        read.append((reference(path, 16, 32), read_sound(path, 0.0, 0.9, 8000)))
    (whole, seconds), (parts, _) = read[0][0], read[1][0]
    assert np.array_equal(whole, parts)
    assert len(seconds) == 9
    assert read[0][1] is not None
    assert read[1][1] is not None
    torch.testing.assert_close(read[0][1], read[1][1])
    assert read[0][1].square().mean() > 0.3
