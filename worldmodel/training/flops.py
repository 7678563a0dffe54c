"""What a training step computes, and what share of this device's peak that is (model FLOPs utilisation).

PaLM's definition (Chowdhery et al. 2022, appendix B): operations that the model needs, not those that are executed, so
recomputed activations, masked pairs and the frames that it imagines as its own context do not count.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

CPU_SIDE, GPU_SIDE = 512, 8192  # of the square matrices whose product is the peak
NUM_PRODUCTS = 4
BACKWARD = 2  # products of a trained layer's backward pass for each of the forward pass: for its input and its weight


@runtime_checkable
class HasProducts(Protocol):
    """A module that multiplies more than its layers do."""

    def products_flops(self, *inputs: Any) -> int:
        """Operations of these products in a forward pass, a multiplication and an addition each."""
        ...


class Flops:
    """Operations of the forward passes that ran while they were counted, and of the backward passes that follow.

    Attributes:
        forward: operations of the forward passes.
        training: those of forward and backward passes; layers that are not trained have no backward pass.
    """

    def __init__(self) -> None:
        """Nothing has run."""
        self.forward, self.training = 0, 0

    def hear(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Adds one call of a module (a forward hook)."""
        count = 0
        if isinstance(module, nn.Linear):
            count = 2 * module.in_features * output.numel()
        elif isinstance(module, nn.Conv2d):
            count = 2 * module.weight[0].numel() * output.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            count = 2 * module.weight[0].numel() * inputs[0].numel()
        if isinstance(module, HasProducts):
            count += module.products_flops(*inputs)
        trained = any(parameter.requires_grad for parameter in module.parameters())
        self.forward += count
        self.training += count * (1 + BACKWARD * trained)


@contextmanager
def counted(module: nn.Module) -> Iterator[Flops]:
    """Counts what the layers of a module compute inside: linear ones, convolutions, and those with `HasProducts`."""
    flops = Flops()
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, HasProducts)
    handles = [part.register_forward_hook(flops.hear) for part in module.modules() if isinstance(part, kinds)]
    try:
        yield flops
    finally:
        for handle in handles:
            handle.remove()


@lru_cache(maxsize=8)
def peak_flops_per_second(device: torch.device, precision: Literal["fp32", "bf16"]) -> float:
    """This device's peak: the fastest of some products of square matrices, which take a moment."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = GPU_SIDE if device.type == "cuda" else CPU_SIDE
    # No draw from the generators of the training.
    one, other = torch.full((2, side, side), 0.5, dtype=dtype, device=device)
    seconds = [seconds_of_product(one, other) for _ in range(NUM_PRODUCTS)]
    return 2 * side**3 / min(seconds)


def seconds_of_product(one: Tensor, other: Tensor) -> float:
    """Time of one product."""
    wait = torch.cuda.synchronize if one.is_cuda else lambda: None
    wait()
    begun = time.perf_counter()
    torch.mm(one, other)
    wait()
    return time.perf_counter() - begun
