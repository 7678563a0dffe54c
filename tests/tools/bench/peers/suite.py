"""What every contender is held to: the frames of the ffmpeg program, however they are asked."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.bench.ffmpeg import ffmpeg, true_frames
from tools.bench.footage import Footage
from tools.bench.peers.contender import Contender, to_square

PLACES = ([0, 1, 2, 3], [40, 41, 42], [5, 9, 13, 17], [80, 81])


def check_full_size(contender: Contender, file: Footage) -> None:
    """Every form gives the right frames at full size, in order and at random."""
    truth = true_frames(file.silent, 64, 112, 90).astype(np.int16)
    for opener in contender.forms.values():
        with closing(opener(file.path, None)) as pictures:
            assert pictures.num_frames() == 90
            for places in PLACES:
                frames = pictures.clip(places).numpy()
                assert frames.dtype == np.uint8
                assert frames.shape == (len(places), 3, 64, 112)
                nearest = [int(np.abs(truth - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames]
                assert nearest == places


def check_square(contender: Contender, file: Footage, side: int = 32) -> None:
    """Every form gives the middle of the frames, scaled."""
    full = torch.from_numpy(true_frames(file.silent, 64, 112, 90)[[20, 21]].copy())
    for opener in contender.forms.values():
        with closing(opener(file.path, side)) as pictures:
            frames = pictures.clip([20, 21])
        assert frames.shape == (2, 3, side, side)
        assert frames.dtype == torch.uint8
        assert (frames.float() - to_square(full, side).float()).abs().mean() < 6


def check_sound(opener: Callable[[Path, int], Any], file: Footage, most_off: int = 1) -> None:
    """Sound of an interval is that of the ffmpeg program at the time that comes with it, give or take some samples."""
    output = ffmpeg("-i", file.path, "-map", "0:a", "-ac", "1", "-ar", "16000", "-f", "f32le", "-")
    truth = np.frombuffer(output, np.float32)
    sound = opener(file.path, 16000)
    for start, stop in ((1.0, 1.5), (0.5, 0.75)):
        samples, first = sound.between(start, stop)
        assert abs(first - start) < 0.05
        begin = round(first * 16000)
        shifted = [truth[begin + shift :][: len(samples)] for shift in range(-most_off, most_off + 1)]
        assert max(np.corrcoef(samples.numpy(), expected)[0, 1] for expected in shifted) > 0.98
