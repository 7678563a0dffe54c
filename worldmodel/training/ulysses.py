"""Groups of processes that share clips, each with its part of the frames (Jacobs et al. 2023, "DeepSpeed Ulysses").

Everything that looks at tokens one by one is done where the tokens are. For attention, tokens are exchanged for heads:
a process then has all tokens of its share of the heads. DeepSpeed's engine is told nothing of the groups, and averages
gradients over all processes; told of them, it multiplies gradients, or lets processes drift apart.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from worldmodel.attention import Backend, attend
from worldmodel.sight import Sight
from worldmodel.training import cluster


class Ulysses:
    """This process's group.

    Attributes:
        rank: number of this process in the group.
        size: processes of the group.
    """

    def __init__(self, size: int, distributed_attention: Callable[..., Any]) -> None:
        """Makes the groups of neighbouring processes, of which every process must know all.

        Args:
            size: processes of a group; it divides their number.
            distributed_attention: DeepSpeed's, which exchanges tokens for heads around an attention.
        """
        ranks = cluster.find_ranks()
        groups = [dist.new_group(range(first, first + size)) for first in range(0, ranks.num_ranks, size)]
        self.rank, self.size = ranks.rank % size, size
        self.group = groups[ranks.rank // size]
        self.exchanged = distributed_attention(heads_last, self.group, scatter_idx=2, gather_idx=1)

    def attend(
        self,
        query: Float[Tensor, "batch head part channel"],
        key: Float[Tensor, "batch head part channel"],
        value: Float[Tensor, "batch head part channel"],
        sight: Sight | None,
        backend: Backend = "sdpa",
    ) -> Float[Tensor, "batch head part channel"]:
        """Attention of this process's tokens to those of all; `sight` is that of all tokens."""
        tokens_first = (each.transpose(1, 2) for each in (query, key, value))
        return self.exchanged(*tokens_first, 0, None, sight, backend).transpose(1, 2)

    def gather(self, states: Float[Tensor, "batch part token dim"]) -> Float[Tensor, "batch frame token dim"]:
        """The states of all frames, on every process of the group."""
        return Gathered.apply(states, self.group)  # type: ignore[return-value]


def heads_last(query: Tensor, key: Tensor, value: Tensor, sight: Sight | None, backend: Backend) -> Tensor:
    """Attention of (batch, token, head, channel), as DeepSpeed has it."""
    return attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), sight, backend).transpose(1, 2)


class Gathered(torch.autograd.Function):
    """Parts of the second axis joined; backwards, every process's gradient of a part is added up where the part is."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        """Joins the parts."""
        ctx.group = group
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Adds up the gradients of this process's part."""
        parts = [each.contiguous() for each in gradients[0].chunk(dist.get_world_size(ctx.group), 1)]
        mine = torch.empty_like(parts[0])
        dist.reduce_scatter(mine, parts, group=ctx.group)
        return mine, None
