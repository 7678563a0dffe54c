"""How close sound is to other sound: log-spectral distance, and when events are heard."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

FLOOR_DB = -60.0  # below a full-scale sine; both spectra are silent there
WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.008
ONSET_HOP_SECONDS, ONSET_WINDOW_SECONDS = 0.0025, 0.01
ONSET_RISE_DB, ONSET_RISE_SECONDS = 4.0, 0.015
ONSET_APART_SECONDS = 0.05  # onsets closer to each other are one
EVENT_RANGE_DB = 30.0  # what is softer than the loudest by more is no event
MATCH_SECONDS = 0.05  # an onset is found within so much of its time


class Matched(NamedTuple):
    """Onsets of two sounds beside each other.

    Attributes:
        errors: seconds by which those found are off, later is positive.
        num_missed: of the truth, without one in the other.
        num_extra: of the other, without one in the truth.
    """

    errors: Float64[np.ndarray, " onset"]
    num_missed: int
    num_extra: int


def log_spectral_distance(
    sound: Float[Tensor, "clip sample"], reference: Float[Tensor, "clip sample"], sample_hz: int
) -> Float[Tensor, " clip"]:
    """Root mean square over frequencies of the difference of power spectra in decibels, mean over time.

    (Gray and Markel 1976, "Distance measures for speech processing".) Hann windows of 32 ms, every 8 ms; power
    more than 60 dB below a full-scale sine counts as that, or noise that nobody hears would decide.
    """
    window = torch.hann_window(round(WINDOW_SECONDS * sample_hz))
    spectra = []
    for each in (sound, reference):
        spectrum = torch.stft(
            each.float(), len(window), max(1, round(HOP_SECONDS * sample_hz)), window=window, return_complex=True
        )
        level = 20 * torch.log10(spectrum.abs() / (window.sum() / 2) + 1e-12)
        spectra.append(level.clamp(min=FLOOR_DB))
    return (spectra[0] - spectra[1]).square().mean(1).sqrt().mean(1)


def onsets_of(
    sound: Float[Tensor, " sample"], sample_hz: int, floor_db: float = FLOOR_DB
) -> Float64[np.ndarray, " onset"]:
    """Seconds at which something begins to sound: where the energy rises fast (spectral flux of one band).

    The level of the last 10 ms is read every 2.5 ms; an onset is where it rises most within 50 ms, if it rises by 4 dB
    or more within 15 ms. (Bello et al. 2005, "A tutorial on onset detection in music signals", section on energy.)

    Args:
        sound: of one clip.
        sample_hz: its rate.
        floor_db: level below which nothing is heard; see `floor_of`.
    """
    hop = max(1, round(ONSET_HOP_SECONDS * sample_hz))
    level = _levels(sound, hop, round(ONSET_WINDOW_SECONDS * sample_hz)).clip(min=floor_db)
    back, apart = round(ONSET_RISE_SECONDS / ONSET_HOP_SECONDS), round(ONSET_APART_SECONDS / ONSET_HOP_SECONDS)
    rise = level - np.concatenate([np.full(back, level[0]), level[:-back]])
    times: list[float] = []
    for step in np.flatnonzero(rise >= ONSET_RISE_DB):
        first = step == max(0, step - apart) + rise[max(0, step - apart) : step + apart + 1].argmax()
        if first:
            times.append(_begin(level, int(step), back) * hop / sample_hz)
    return np.array(times, np.float64)


def floor_of(sound: Float[Tensor, " sample"], sample_hz: int) -> float:
    """Level in decibels that is 30 below the loudest of a clip, and -60 at least: what is softer is no event."""
    hop = max(1, round(ONSET_HOP_SECONDS * sample_hz))
    return max(FLOOR_DB, float(_levels(sound, hop, round(ONSET_WINDOW_SECONDS * sample_hz)).max()) - EVENT_RANGE_DB)


def match_onsets(found: Float64[np.ndarray, " found"], truth: Float64[np.ndarray, " onset"]) -> Matched:
    """Pairs of onsets at most 50 ms apart, the closest pairs first, each onset in one pair at most."""
    distances = np.abs(found[:, None] - truth[None])
    order = np.argsort(distances, axis=None, kind="stable")
    used_found, used_truth, errors = set(), set(), []
    for one, other in zip(*np.unravel_index(order, distances.shape), strict=True):
        if distances[one, other] <= MATCH_SECONDS and one not in used_found and other not in used_truth:
            used_found.add(one)
            used_truth.add(other)
            errors.append(found[one] - truth[other])
    return Matched(np.array(errors, np.float64), len(truth) - len(used_truth), len(found) - len(used_found))


def _levels(sound: Float[Tensor, " sample"], hop: int, window: int) -> Float64[np.ndarray, " step"]:
    """Root mean square of the last `window` samples after every `hop`, in decibels below a full-scale sine."""
    energy = np.cumsum(np.concatenate([np.zeros(window + 1), sound.double().numpy() ** 2]))
    ends = np.arange(window + hop, len(energy), hop)
    return 10 * np.log10((energy[ends] - energy[ends - window]) / window * 2 + 1e-12)


def _begin(level: Float64[np.ndarray, " step"], step: int, back: int) -> int:
    """The step of the steepest rise among those that a rise ends at."""
    start = max(1, step - back + 1)
    return start + int(np.diff(level)[start - 1 : step].argmax()) if step >= start else step
