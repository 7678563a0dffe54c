from pathlib import Path

import torch

from streams.pyav.index import index_frames
from streams.pyav.writer import write_video
from streams.settings import EncoderSettings


def test_the_keyframes_are_as_far_apart_as_asked(tmp_path: Path):
    frames = torch.full((24, 3, 32, 32), 90, dtype=torch.uint8)
    for gop_frames in (4, 24):
        write_video(tmp_path / "a.mp4", frames, 10.0, encoder=EncoderSettings(gop_frames=gop_frames, num_b_frames=0))
        assert len(index_frames(tmp_path / "a.mp4").keys) == 24 // gop_frames
