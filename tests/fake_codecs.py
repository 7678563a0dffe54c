"""Codecs without weights whose codes can be worked out by hand, and small videos for them."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streams.pyav.writer import write_video
from streams.settings import ClipSettings
from worldmodel.layout import Pyramid, Scale
from worldmodel.settings import PictureCodecSettings, SoundCodecSettings

CLIPS = ClipSettings(frames_per_second=10.0, height=16, width=16, sample_hz=8000)


class FakePictureCodec:
    """Mean grey of the frame and of its quarters in 16 levels, kept while it changes by less than a level."""

    kind = "picture"
    fingerprint = "fake-picture-1"
    settings: object = PictureCodecSettings()
    pyramid = Pyramid((Scale(1, 1, 16), Scale(2, 2, 16)))

    def __init__(self, clips: ClipSettings = CLIPS) -> None:
        self.clips = clips

    def encode(self, frames: Tensor) -> Tensor:
        """Codes of clips in order, sticky."""
        grey = (frames.mean(2) + 1) * 8
        values = torch.cat([F.adaptive_avg_pool2d(grey, side).flatten(2) for side in (1, 2)], dim=2)
        codes = [values[:, 0].floor()]
        for value in values.unbind(1)[1:]:
            codes.append(torch.where((value - codes[-1] - 0.5).abs() < 1.0, codes[-1], value.floor()))
        return torch.stack(codes, dim=1).clamp(0, 15).long()

    def encode_views(self, frames: Tensor, lengths: object = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode(frames), self.encode(frames.flip(1)), self.encode(frames[:, : frames.shape[1] // 2 * 2 : 2])

    def decode(self, codes: Tensor) -> Tensor:
        """Frames whose quarters have the grey of their codes."""
        grey = codes[..., 1:].unflatten(-1, (2, 2)).float() / 8 - 1
        quarters = grey.repeat_interleave(self.clips.height // 2, -2).repeat_interleave(self.clips.width // 2, -1)
        return quarters[:, :, None].expand(-1, -1, 3, -1, -1)

    def to(self, device: str) -> "FakePictureCodec":
        return self

    def eval(self) -> "FakePictureCodec":
        return self


class FakeSoundCodec(FakePictureCodec):
    """Loudness of both halves of a frame's sound in 8 levels."""

    kind = "sound"
    fingerprint = "fake-sound-1"
    settings = SoundCodecSettings()
    pyramid = Pyramid((Scale(1, 2, 8),))

    def encode(self, frames: Tensor) -> Tensor:
        """Codes of sound."""
        return (frames.unflatten(-1, (2, -1)).abs().mean(-1) * 8).clamp(0, 7).long()

    def decode(self, codes: Tensor) -> Tensor:
        """Sound that is as loud as its codes say."""
        return (codes.float() / 8).repeat_interleave(self.clips.samples_per_frame // 2, -1)


def make_videos(folder: Path, num_videos: int = 3, num_frames: int = 20, silent: tuple[int, ...] = ()) -> list[Path]:
    """Videos whose left half is still and whose right half flashes; every one different."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for video in range(num_videos):
        generator = np.random.default_rng(video)
        frames = torch.full((num_frames, 3, 16, 16), 40 + 20 * video, dtype=torch.uint8)
        flash = generator.integers(0, 255, (num_frames, 1, 1, 1)).astype(np.uint8)
        frames[..., 8:] = torch.from_numpy(flash)
        sound = torch.from_numpy(generator.uniform(-0.5, 0.5, num_frames * 800).astype(np.float32))
        paths.append(folder / f"{video}.mp4")
        write_video(paths[-1], frames, 10.0, None if video in silent else sound, 8000)
    return paths
