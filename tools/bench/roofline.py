"""What a device could do at best: its fastest matrix product and copy, and the floors of a step under both."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tools.bench.elapsed import seconds_of, wait

SIDES = {"cuda": 8192, "cpu": 1024}  # of square matrices that keep the device at work
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**28}  # far more than its caches hold
NUM_TRIES = 8
# fp32, a number of 4 bytes each time: forward and backward pass read a weight, which gives a gradient; AdamW reads both
# and its two averages, and writes weight and averages.
STEP_BYTES = 4 * (2 + 1 + 4 + 3)


@dataclass(frozen=True)
class Peaks:
    """The best that was seen of a device.

    Attributes:
        flops_per_second: of a matrix product.
        bytes_per_second: read and written by a copy.
    """

    flops_per_second: float
    bytes_per_second: float

    def floors(self, num_flops: int, num_bytes: int) -> tuple[float, float]:
        """Seconds that so many operations, and so many bytes, take at best; the larger is the roofline."""
        return num_flops / self.flops_per_second, num_bytes / self.bytes_per_second


def measure_peaks(device: torch.device, kind: torch.dtype) -> Peaks:
    """The fastest of some products of square matrices of this kind, and of some large copies."""
    side, num_bytes = SIDES[device.type], COPIED_BYTES[device.type]
    one, other = torch.randn(2, side, side, device=device).to(kind)
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait(device)
    product = min(seconds_of(lambda: torch.mm(one, other), device) for _ in range(NUM_TRIES))
    copy = min(seconds_of(lambda: target.copy_(source), device) for _ in range(NUM_TRIES))
    return Peaks(2 * side**3 / product, 2 * num_bytes / copy)


def better(one: Peaks, other: Peaks) -> Peaks:
    """The best of two measurements."""
    return Peaks(max(one.flops_per_second, other.flops_per_second), max(one.bytes_per_second, other.bytes_per_second))


def num_trained(module: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def step_bytes(module: nn.Module) -> int:
    """Bytes that a training step reads and writes at least, of weights and their optimizer; activations left out."""
    return STEP_BYTES * num_trained(module)


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the weights of modules, as they are kept."""
    return sum(weight.numel() * weight.element_size() for module in modules for weight in module.parameters())


def cache_bytes(layers: list[tuple[Tensor, Tensor]]) -> int:
    """Bytes of keys and values."""
    return sum(kept.numel() * kept.element_size() for layer in layers for kept in layer)
