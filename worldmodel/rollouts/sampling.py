"""Drawing codes from logits: temperature, top-k and top-p, one setting for all scales or one per scale."""

from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.errors import SettingsError
from worldmodel.settings import SamplingSettings

T = TypeVar("T")


def check_sampling(settings: SamplingSettings, num_scales: int) -> None:
    """Refuse values out of range and lists of the wrong length.

    Raises:
        SettingsError: names the setting, its value and what was expected.
    """
    for name, values in vars(settings).items():
        if len(values) not in (1, num_scales):
            raise SettingsError(f"{name} has {len(values)} values {values}: give 1 for all scales, or {num_scales}")
    rules = {
        "temperature": (settings.temperature, lambda value: value >= 0, "0 or more"),
        "top_k": (settings.top_k, lambda value: value >= 0, "0 (all codes) or more"),
        "top_p": (settings.top_p, lambda value: 0 < value <= 1, "above 0 and at most 1"),
    }
    for name, (values, allowed, expected) in rules.items():
        for value in values:
            if not allowed(value):
                raise SettingsError(f"{name}={value} is out of range: it must be {expected}")


def sample_codes(
    logits: Float[Tensor, "item place vocabulary"],
    settings: SamplingSettings,
    scale: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "item place"]:
    """Draw one code per place."""
    temperature = _of_scale(settings.temperature, scale)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    top_k, top_p = _of_scale(settings.top_k, scale), _of_scale(settings.top_p, scale)
    if 0 < top_k < logits.shape[-1]:
        values, order = logits.topk(top_k, -1)  # by place, not by value: ties do not let more codes in
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, values)
    if top_p < 1:
        logits = _keep_nucleus(logits, top_p)
    flat = logits.softmax(-1).flatten(0, 1)
    return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:2])


def _keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    ordered, order = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    # A code is dropped when the more likely ones already reach top_p; the most likely one always stays.
    drop = probabilities.cumsum(-1) - probabilities >= top_p
    return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)


def _of_scale(values: list[T], scale: int) -> T:
    return values[scale] if len(values) > 1 else values[0]
