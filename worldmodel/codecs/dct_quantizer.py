"""Coefficients to whole numbers of steps, sticky in time; how large they can be; the quality that meets a target."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

BITS_TOLERANCE = 0.1  # share of the target by which a frame may miss it before its quality changes


def quantise(
    coefficients: Int[Tensor, "item coefficient"],
    steps: Int[Tensor, "#item layer coefficient"],
    old: Int[Tensor, "item layer coefficient"] | None,
    sticky_margin: float,
) -> Int[Tensor, "item layer coefficient"]:
    """Numbers of steps, rounded half away from zero as libjpeg does; each layer divides what those before it left.

    Args:
        coefficients: in the unit of the steps.
        steps: even numbers, so that half of one is exact.
        old: values of the frame before, which stay unless the picture pays for the change.
        sticky_margin: how much worse an old value may be, in squared steps.
    """
    left, layers = coefficients, []
    for layer in range(steps.shape[1]):
        step = steps[:, layer]
        value = left.sign() * ((left.abs() + step // 2) // step)
        if old is not None and sticky_margin > 0:
            was = old[:, layer]
            worse = (left - was * step) ** 2 - (left - value * step) ** 2
            value = torch.where(worse <= sticky_margin * step.double() ** 2, was, value)
        left = left - value * step
        layers.append(value)
    return torch.stack(layers, 1)


def largest_values(
    peaks: Float64[np.ndarray, " frequency"], tables: Int[np.ndarray, "layer 2 frequency"], sticky_margin: float
) -> list[tuple[list[int], list[int]]]:
    """Largest magnitudes that `quantise` gives luma and chroma at every frequency, layer by layer.

    Args:
        peaks: largest magnitudes of the coefficients.
        tables: steps of luma and of chroma, in the same unit.
        sticky_margin: as `quantise` has it.
    """
    left, layers = np.broadcast_to(peaks, tables.shape[1:]), []
    for steps in tables:
        luma, chroma = np.floor(left / steps + 0.5).astype(int).tolist()
        layers.append((luma, chroma))
        # What may be left: half a step, or more where an old value is kept.
        left = math.sqrt(0.25 + sticky_margin) * steps
    return layers


def nearest_quality(
    bits_at: Callable[[Tensor], Tensor], num_qualities: int, target: int, like: Tensor
) -> Int[Tensor, " item"]:
    """The quality of each item, counted from the lowest, whose bits are nearest to the target, by bisection.

    Args:
        bits_at: bits of all items, each at its own quality; more at a higher one.
        num_qualities: to choose from.
        target: bits of an item.
        like: something with one entry per item, on their device.
    """
    low = torch.zeros(len(like), dtype=torch.int64, device=like.device)
    high = torch.full_like(low, num_qualities - 1)
    for _ in range(math.ceil(math.log2(num_qualities))):
        middle = (low + high + 1) // 2
        fits = bits_at(middle) <= target
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle - 1).maximum(low)
    above = (low + 1).clamp(max=num_qualities - 1)
    misses = [(bits_at(quality) - target).abs() for quality in (low, above)]
    return torch.where(misses[1] < misses[0], above, low)
