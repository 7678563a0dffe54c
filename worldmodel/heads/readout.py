"""What the heads that answer yes or no share: evidence read from every state, summed over a clip."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadResult:
    """One head on one batch.

    Attributes:
        loss: scalar to minimise.
        scores: one value per item of which the mean is the head's metric; above `chance` is better than guessing.
    """

    loss: Tensor
    scores: Tensor


class EvidenceReadout(nn.Module):
    """Log-odds that a clip is of the first kind: evidence of every frame's state, summed over the frames.

    The first frames are left out: a single picture cannot tell.
    """

    def __init__(self, dim: int, first_frame: int = 2) -> None:
        super().__init__()
        self.first_frame = first_frame
        self.layers = nn.Sequential(nn.Linear(4 * dim, dim), nn.SiLU(), nn.Linear(dim, 1))

    def forward(self, states: Float[Tensor, "item frame token dim"]) -> Float[Tensor, " item"]:
        """One logit per clip."""
        states = states[:, self.first_frame :]
        # An impact is one token's affair (the largest), and belongs to its sound (the last) only as their product.
        mean, largest, last = states.mean(2), states.amax(2), states[:, :, -1]
        evidence = self.layers(torch.cat((mean, largest, last, largest * last), -1))[..., 0].float()
        return evidence.sum(1) / evidence.shape[1] ** 0.5


def tell_apart(
    positive: Float[Tensor, " item"], negative: Float[Tensor, " other"]
) -> tuple[Float[Tensor, ""], Float[Tensor, " both"]]:
    """Balanced cross-entropy of two kinds of clips, and for each clip 1 where it is told right, else 0."""
    loss = 0.5 * (F.softplus(-positive).mean() + F.softplus(negative).mean())
    right: Bool[Tensor, " both"] = torch.cat((positive > 0, negative < 0))
    return loss, right.float()
