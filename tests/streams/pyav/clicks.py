"""Sound whose onsets are known."""

import numpy as np
import torch

HZ = 16000
CLICKS_SECONDS = (0.3, 0.71, 1.234, 1.9)


def clicks(hz: int = HZ, seconds: float = 2.4) -> torch.Tensor:
    """Short high tones that start at known times, over silence."""
    sound = torch.zeros(round(hz * seconds))
    tone = 0.6 * torch.cos(2 * torch.pi * 3000 / hz * torch.arange(round(0.02 * hz)))
    for start in CLICKS_SECONDS:
        first = round(start * hz)
        sound[first : first + len(tone)] = tone
    return sound


def onsets_seconds(sound: np.ndarray, hz: int) -> list[float]:
    """Times at which it gets loud after at least 0.1 s of quiet."""
    loud = np.flatnonzero(np.abs(sound) > 0.15) / hz
    return [time for time, before in zip(loud, [-1.0, *loud[:-1]], strict=True) if time - before > 0.1]
