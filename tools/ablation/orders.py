"""In which order the places of a grid are decoded, one after another: always the same, or by what is seen."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

SEED = 0  # of the order that is random, but always the same
TIE = 1e-3  # of a latent's root mean square: places whose saliency differs by less may as well be equal


def raster(height: int, width: int) -> Int[Tensor, " place"]:
    """Row by row."""
    return torch.arange(height * width)


def spiral(height: int, width: int) -> Int[Tensor, " place"]:
    """From the middle outwards, ring by ring, each once around."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
    ring = torch.maximum(down.abs(), right.abs())
    return _sorted(ring * 8 + torch.atan2(down, right))  # angles span less than 8


def quadtree(height: int, width: int) -> Int[Tensor, " place"]:
    """Quarter by quarter, each again quarter by quarter (Morton 1966)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    number = torch.zeros_like(rows)
    for bit in range(max(height, width).bit_length()):
        number += ((rows >> bit & 1) << (2 * bit + 1)) + ((columns >> bit & 1) << (2 * bit))
    return _sorted(number)


def random(height: int, width: int) -> Int[Tensor, " place"]:
    """At random, but for every frame the same."""
    return torch.randperm(height * width, generator=torch.Generator().manual_seed(SEED))


def salient_first(latents: Float[Tensor, "item place latent"]) -> Int[Tensor, "item place"]:
    """The places that are least like the rest of their frame first, as foreground is; where they tie, row by row.

    Differences as small as a rounding error would order a plain background at random, so they are rounded away.
    """
    distance = torch.linalg.vector_norm(latents - latents.mean(1, keepdim=True), dim=2)
    unit = TIE * latents.square().sum(2).mean(1, keepdim=True).sqrt().clamp(min=1e-6)
    return (distance / unit).round().argsort(dim=1, descending=True, stable=True)


def _sorted(keys: Tensor) -> Int[Tensor, " place"]:
    return keys.flatten().argsort(stable=True)


ORDERS: dict[str, Callable[[int, int], Tensor]] = {
    "raster": raster,
    "spiral": spiral,
    "quadtree": quadtree,
    "random": random,
}
