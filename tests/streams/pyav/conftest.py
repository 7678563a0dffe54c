"""A video with clicks at known times."""

from pathlib import Path

import pytest
import torch

from streams.pyav.writer import write_video
from streams.settings import EncoderSettings
from tests.streams.ffmpeg import numbered_frames
from tests.streams.pyav.clicks import HZ, clicks


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyav") / "a.mp4"
    frames = torch.from_numpy(numbered_frames(48)).permute(0, 3, 1, 2).contiguous()
    write_video(path, frames, 20.0, clicks(), HZ, EncoderSettings(crf=12, gop_frames=30, num_b_frames=3))
    return path
