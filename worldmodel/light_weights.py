"""The matrices of a trained model's blocks in fewer bits, for rollouts: a quarter or half of the bytes to read."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.settings import Weights

# How a matrix is kept, and its largest number; bfloat16 needs no scale.
KINDS: dict[Weights, tuple[torch.dtype, float]] = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}


class LightLinear(nn.Linear):
    """A linear layer whose products are in bfloat16, whatever its matrix is kept in.

    In 8 bits every output's row has a scale, by which its largest weight is the largest number of the kind (as in
    LLM.int8: Dettmers et al. 2022; inputs are not rounded).

    Attributes:
        scale: of every output; none where the weights are bfloat16.
    """

    def __init__(self, linear: nn.Linear, weights: Weights) -> None:
        """Take over a trained layer."""
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        kept, scale = linear.weight.detach().bfloat16(), None
        if weights in KINDS:
            kind, largest = KINDS[weights]
            row = linear.weight.detach().float()
            # Rounded up, so that no weight is larger than the largest number.
            scale = ((1 + 2**-8) * row.abs().amax(1) / largest).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
            kept = row / scale.float()[:, None]
            kept = (kept.round() if kind == torch.int8 else kept).to(kind)
        self.weight = nn.Parameter(kept, requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().bfloat16(), requires_grad=False)
        self.scale = None if scale is None else nn.Parameter(scale, requires_grad=False)

    def forward(self, x: Float[Tensor, "*item input"]) -> Float[Tensor, "*item output"]:
        """In bfloat16."""
        if self.scale is None:
            return F.linear(x.bfloat16(), self.weight, self.bias)
        product = F.linear(x.bfloat16(), self.weight.bfloat16()) * self.scale
        return product if self.bias is None else product + self.bias


def lighten(blocks: Iterable[nn.Module], weights: Weights) -> None:
    """Put the matrices of a model's blocks into fewer bits, for good; fp32 leaves them as they are."""
    if weights == "fp32":
        return
    for block in blocks:
        linear = [(name, layer) for name, layer in block.named_modules() if isinstance(layer, nn.Linear)]
        for name, layer in linear:
            parent, _, own = name.rpartition(".")
            setattr(block.get_submodule(parent), own, LightLinear(layer, weights))
