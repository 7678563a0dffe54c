"""Codes from logits: drawn one by one, or moved together; temperature, top-k, top-p, min-p for all scales or each."""

import math
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.attention import full_precision
from worldmodel.errors import SettingsError
from worldmodel.settings import SamplingSettings

T = TypeVar("T")

SURE = 0.95  # a code that is kept with this probability is kept
SHARE_UNITS = 2**30  # of which a probability is a whole number
NO_SHARES = "the model predicts no probabilities (its logits are not finite): was its training stable?"


def check_sampling(settings: SamplingSettings, num_scales: int) -> None:
    """Refuse values out of range and lists of the wrong length.

    Raises:
        SettingsError: names the setting, its value and what was expected.
    """
    for name, values in vars(settings).items():
        if isinstance(values, list) and len(values) not in (1, num_scales):
            raise SettingsError(f"{name} has {len(values)} values {values}: give 1 for all scales, or {num_scales}")
    rules = {
        "temperature": (settings.temperature, lambda value: value >= 0, "0 or more"),
        "top_k": (settings.top_k, lambda value: value >= 0, "0 (all codes) or more"),
        "top_p": (settings.top_p, lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "min_p": (settings.min_p, lambda value: 0 <= value <= 1, "0 (all codes) to 1"),
        "guidance": ([settings.guidance], lambda value: 0 <= value < math.inf, "0 or more; 1 is none"),
        "preview_scales": (
            [settings.preview_scales],
            lambda value: 0 <= value <= num_scales,
            f"0 (no preview) to {num_scales}",
        ),
        "moved_scales": ([settings.moved_scales], lambda value: value >= 0, "0 (all scales are drawn) or more"),
    }
    for name, (values, allowed, expected) in rules.items():
        for value in values:
            if not allowed(value):
                raise SettingsError(f"{name}={value} is out of range: it must be {expected}")


def sample_codes(
    logits: Float[Tensor, "item code vocabulary"],
    settings: SamplingSettings,
    scale: int,
    numbers: Float[Tensor, "item code"] | None = None,
) -> Int[Tensor, "item code"]:
    """Draw every code, by `numbers` from 0 to 1, which are drawn here if they are not given."""
    logits = _restricted(logits, settings, scale)
    if _of_scale(settings.temperature, scale) == 0:
        return logits.argmax(-1)
    # Shares as whole numbers, whose sums no device rounds; a number below the last sum falls into one of them.
    sums = (logits.softmax(-1) * SHARE_UNITS).int().cumsum(-1, dtype=torch.int32)
    # A device is not waited for; torch has no public name for that.
    torch._assert_async((sums[..., -1] > SHARE_UNITS // 2).all(), NO_SHARES)  # type: ignore[attr-defined]
    numbers = torch.rand(logits.shape[:2], device=logits.device) if numbers is None else numbers
    return torch.searchsorted(sums, (numbers[..., None].double() * sums[..., -1:]).int(), right=True)[..., 0]


def move_codes(
    logits: Float[Tensor, "item code vocabulary"],
    settings: SamplingSettings,
    scale: int,
    vectors: Float[Tensor, "plane vocabulary latent"],
    previous: Int[Tensor, "item code"],
    threshold: Float[Tensor, "item 1"],
) -> Int[Tensor, "item code"]:
    """Codes that move together: each place keeps its previous code or takes the mean of the others.

    A place keeps its code if the code's probability is above `threshold`, a random number from 0 to 1 that all places
    of a frame share, or if it is nearly 1: else a rare threshold would move all that stands still. Otherwise it takes
    the code nearest to the mean of the other codes' distribution, the one of least expected squared error (minimum
    Bayes risk: Kumar and Byrne 2004). So a place moves as often as it should, all that moves with it moves at the same
    time, and codes that mean nearly the same do not compete. The planes of a place move each by its own codebook.
    """
    logits = _restricted(logits, settings, scale)
    if _of_scale(settings.temperature, scale) == 0:
        return logits.argmax(-1)
    shares = logits.softmax(-1)
    kept = shares.gather(-1, previous[..., None])
    others = shares.scatter(-1, previous[..., None], 0.0)
    with full_precision(logits.device):
        others = others / others.sum(-1, keepdim=True).clamp(min=1e-9)
        planes = zip(others.chunk(len(vectors), 1), vectors, strict=True)
        distances = torch.cat([torch.cdist(part @ table, table.expand(len(part), -1, -1)) for part, table in planes], 1)
    keeps = (kept[..., 0] > threshold) | (kept[..., 0] >= SURE)
    return torch.where(keeps, previous, distances.masked_fill(others == 0, torch.inf).argmin(-1))


def _restricted(logits: Tensor, settings: SamplingSettings, scale: int) -> Tensor:
    """Logits after temperature, top-k, top-p and min-p; at temperature 0 as they are."""
    temperature = _of_scale(settings.temperature, scale)
    logits = logits.float() if temperature in (0, 1) else logits.float() / temperature
    top_k, top_p = _of_scale(settings.top_k, scale), _of_scale(settings.top_p, scale)
    if 0 < top_k < logits.shape[-1]:
        values, order = logits.topk(top_k, -1)  # by place, not by value: ties do not let more codes in
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, values)
    logits = _keep_nucleus(logits, top_p) if top_p < 1 else logits
    min_p = _of_scale(settings.min_p, scale)
    if min_p > 0:
        least = logits.amax(-1, keepdim=True) + math.log(min_p)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


def _keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    ordered, order = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    # A code is dropped when the more likely ones already reach top_p; the most likely one always stays.
    drop = probabilities.cumsum(-1) - probabilities >= top_p
    return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)


def _of_scale(values: list[T], scale: int) -> T:
    return values[scale] if len(values) > 1 else values[0]
