"""How near scaled frames are to the full-size decode, scaled antialiased."""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tools.bench.ffmpeg import true_frames
from tools.bench.footage import Footage, columns_of
from tools.bench.peers.all import contenders
from tools.bench.peers.contender import SIDE, to_square
from tools.bench.race import Finding
from tools.bench.settings import StreamsSettings

NUM_FRAMES = 48


def quality(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Finding]:
    """PSNR of every form of every contender on the first frames of every file."""
    for file in footage:
        truth = truth_of(file)
        for contender in contenders():
            for form, opener in contender.forms.items():
                with closing(opener(file.path, SIDE)) as pictures:
                    frames = torch.cat([pictures.clip(range(at, at + 16)) for at in range(0, len(truth), 16)])
                yield Finding("quality", file.name, contender.name, psnr(frames, truth), "dB", form)


def truth_of(file: Footage) -> Float32[Tensor, "frame 3 height width"]:
    """Frames of the ffmpeg program at full size, scaled in floating point."""
    frames = true_frames(file.silent, file.rows, columns_of(file.rows), NUM_FRAMES)
    return torch.cat([to_square(torch.from_numpy(frame.astype(np.float32))[None], SIDE) for frame in frames]).round()


def psnr(frames: UInt8[Tensor, "*shape"], truth: Float32[Tensor, "*shape"]) -> float:
    """Peak signal to noise ratio in dB, over all frames together."""
    error = (frames.float() - truth).square().mean().item()
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
