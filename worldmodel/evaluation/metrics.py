"""Measures of pictures and codes, in plain numpy."""

import numpy as np
from jaxtyping import Float, Integer, UInt8
from torch import Tensor


def psnr(
    frames: UInt8[Tensor, "*batch 3 height width"], reference: UInt8[Tensor, "*batch 3 height width"]
) -> Float[np.ndarray, "*batch"]:
    """Peak signal to noise ratio of every frame in decibels; infinite where the frames are equal."""
    difference = frames.numpy(force=True).astype(np.float64) - reference.numpy(force=True)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 / np.square(difference).mean(axis=(-3, -2, -1))))


def bootstrap_interval(
    values: Float[np.ndarray, " value"], generator: np.random.Generator, num_draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean by the percentile bootstrap (Efron 1979).

    Args:
        values: independent measurements: one per video or clip, not one per frame.
        generator: of the draws.
        num_draws: resampled means.
        level: share of the resampled means inside the interval.

    Raises:
        ValueError: when there is no value.
    """
    if len(values) == 0:
        raise ValueError("no values: a mean needs at least one")
    means = [generator.choice(values, len(values)).mean() for _ in range(num_draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def entropy_bits(counts: Integer[np.ndarray, " entry"] | Float[np.ndarray, " entry"]) -> float:
    """Entropy in bits of a code drawn as often as counted; its perplexity is 2 to this power.

    It is the loss of the best model that knows nothing but how often each code occurs, so a trained one must be below.

    Raises:
        ValueError: when nothing was counted.
    """
    if counts.sum() == 0:
        raise ValueError("no codes were counted")
    shares = counts[counts > 0] / counts.sum()
    return float(np.abs(np.sum(shares * np.log2(shares))))


def unigram_entropy_bits(codes: Integer[np.ndarray, "*clip code"], slices: tuple[slice, ...]) -> list[float]:
    """Entropy in bits per code of every scale.

    Args:
        codes: flat codes of frames, all scales concatenated.
        slices: where every scale lies in the flat codes (`Pyramid.slices`).
    """
    return [entropy_bits(np.bincount(codes[..., part].reshape(-1))) for part in slices]


def code_divergence_bits(
    codes: Integer[np.ndarray, "clip code"], reference: Integer[np.ndarray, "other code"], slices: tuple[slice, ...]
) -> float:
    """Jensen-Shannon divergence in bits between how often each code occurs, the mean over the scales (Lin 1991).

    0 where both use their codes alike, 1 where they share none; a few clips of one kind already differ by something.

    Args:
        codes: flat codes of frames, all scales concatenated.
        reference: what they are compared with.
        slices: where every scale lies in the flat codes (`Pyramid.slices`).
    """
    found = []
    for part in slices:
        size = 1 + max(int(codes[:, part].max()), int(reference[:, part].max()))
        ours, theirs = (np.bincount(each[:, part].reshape(-1), minlength=size) for each in (codes, reference))
        both = ours / ours.sum() + theirs / theirs.sum()
        found.append(entropy_bits(both) - (entropy_bits(ours) + entropy_bits(theirs)) / 2)
    return float(np.mean(found))
