from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.pyav.writer import write_video
from streams.random_crops import RandomCrops, random_part
from streams.settings import ClipSettings
from streams.source import BlockSource
from streams.videos import VideoSource

SETTINGS = ClipSettings(frames_per_second=10.0, height=32, width=48, num_frames=4)


def slope(rows: int, columns: int, num_frames: int = 2) -> torch.Tensor:
    """Pictures that are brighter to the right (red) and further down (green)."""
    right = torch.linspace(10, 240, columns).expand(rows, columns)
    down = torch.linspace(10, 240, rows)[:, None].expand(rows, columns)
    return torch.stack([right, down, torch.full_like(right, 90)]).round().to(torch.uint8).repeat(num_frames, 1, 1, 1)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crops") / "a.mp4"
    write_video(path, slope(96, 144, 40), 10.0, None, 16000)
    return path


def test_clips_have_the_size_that_was_asked_for_and_can_be_read_in_blocks(video: Path):
    source = RandomCrops([video], SETTINGS, zoom=1.5)
    assert isinstance(source, BlockSource)
    assert source.read(0, np.random.default_rng(0)).frames.shape == (4, 3, 32, 48)


def test_a_clip_is_the_same_alone_and_in_a_block(video: Path):
    source = RandomCrops([video], SETTINGS, random_start=True)
    alone = [source.read(index, np.random.default_rng(index)) for index in (0, 1, 2)]
    together = source.read_together([0, 1, 2], [np.random.default_rng(index) for index in (0, 1, 2)])
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.seconds, other.seconds)


def test_starts_are_those_of_whole_pictures(video: Path):
    whole, cropped = (
        VideoSource([video], SETTINGS, random_start=True),
        RandomCrops([video], SETTINGS, random_start=True),
    )
    for seed in range(5):
        ours, theirs = (source.read(1, np.random.default_rng(seed)).seconds for source in (cropped, whole))
        assert torch.equal(ours, theirs)


def test_parts_have_all_sizes_and_places_and_are_mirrored_half_the_time():
    frames, generator = slope(96, 144), np.random.default_rng(0)
    parts = torch.stack([random_part(frames, (32, 48), generator)[0] for _ in range(400)]).float()
    widths = (parts[:, 0, :, -1] - parts[:, 0, :, 0]).mean(1)  # negative where mirrored
    assert 0.4 < float((widths < 0).float().mean()) < 0.6
    span = widths.abs() / 230
    assert 0.3 < float(span.min()) < 0.4  # a third of the picture's width, at one pixel of its own for each
    assert float(span.max()) > 0.93
    left = parts[:, 0].amin((1, 2))
    assert float(left.min()) < 20
    assert float(left.max()) > 130


def test_all_frames_of_a_clip_are_cut_alike():
    part = random_part(slope(96, 144, 3), (32, 48), np.random.default_rng(1))
    assert torch.equal(part[0], part[1])
    assert torch.equal(part[0], part[2])


def test_a_picture_of_the_size_of_a_clip_is_at_most_mirrored():
    frames = slope(32, 48)
    for seed in range(8):
        part = random_part(frames, (32, 48), np.random.default_rng(seed))
        assert torch.equal(part, frames) or torch.equal(part, frames.flip(-1))


def test_odd_zooms_keep_the_aspect(video: Path):
    source = RandomCrops([video], replace(SETTINGS, height=30, width=34), zoom=1.37)
    assert source.read(0, np.random.default_rng(0)).frames.shape == (4, 3, 30, 34)
