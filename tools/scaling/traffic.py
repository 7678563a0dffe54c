"""What a training step sends, by arithmetic: of each ZeRO stage as DeepSpeed runs it, of shared clips and matrices."""

from dataclasses import dataclass
from typing import Literal

from worldmodel.blocks import hidden_of
from worldmodel.training.memory import FLOAT_BYTES, LIVE_ELEMENTS

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
PASSES: dict[Kind, int] = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}
EXCHANGES = 4  # around an attention: queries, keys, values, and what was attended
NODE = 8  # GPUs that NVLink connects


@dataclass(frozen=True)
class Model:
    """The trunk of a world model, which holds nearly all of its weights.

    Attributes:
        name: in the tables.
        dim: channels of a token.
        depth: blocks.
    """

    name: str
    dim: int
    depth: int

    @property
    def num_elements(self) -> int:
        """Weights of the matrices of all blocks."""
        return self.depth * (4 * self.dim**2 + 3 * self.dim * hidden_of(self.dim))


@dataclass(frozen=True)
class Sent:
    """One kind of collective in a step, all calls together.

    Attributes:
        kind: of the collective.
        num_bytes: of the whole tensors that are reduced, gathered or scattered; of an all-to-all, what a process has.
        size: processes that take part; neighbours where they are fewer than all.
        stride: of their numbers; of neighbours 1.
    """

    kind: Kind
    num_bytes: float
    size: int
    stride: int = 1

    @property
    def by_process(self) -> float:
        """What a process sends, in the fewest bytes: (n - 1) / n of it, and all-reduce twice (Patarasu, Yuan 2009)."""
        return PASSES[self.kind] * self.num_bytes * (self.size - 1) / self.size

    @property
    def by_links(self) -> tuple[float, float]:
        """What a process sends over NVLink, and over its share of the network between nodes.

        Nodes reduce or gather first within, each process its share of the rest between the nodes.
        """
        inside = min(self.size, max(1, NODE // self.stride))
        nodes = self.size // inside
        if self.kind == "all_to_all":  # every part has its own receiver
            share = self.num_bytes / self.size
            return share * (inside - 1), share * (self.size - inside)
        whole = PASSES[self.kind] * self.num_bytes
        return whole * (inside - 1) / inside, whole / inside * (nodes - 1) / nodes


def of_stage(
    stage: int,
    num_elements: int,
    num_ranks: int,
    accumulate: int = 1,
    kept_elements: float = LIVE_ELEMENTS,
    stride: int = 1,
) -> list[Sent]:
    """Gradients and weights of a step; weights and gradients are fp32.

    DeepSpeed's stages 1 and 2 reduce gradients everywhere (all-reduce) and keep a share. Stage 3 gathers weights for
    the forward pass, and those again for the backward pass whose next use is more than `kept_elements` weights away,
    there and back: all but the last half of so many.

    Args:
        stage: of ZeRO.
        num_elements: trained weights.
        num_ranks: processes.
        accumulate: micro-batches of a step; stages 2 and 3 reduce in each.
        kept_elements: DeepSpeed's stage3_max_reuse_distance.
        stride: of the processes' numbers: those between share the matrices.
    """
    whole = float(FLOAT_BYTES * num_elements)
    if stage == 0:
        return [Sent("all_reduce", whole, num_ranks, stride)]
    if stage < 3:
        return [
            Sent("all_reduce", whole * (accumulate if stage == 2 else 1), num_ranks, stride),
            Sent("all_gather", whole, num_ranks, stride),
        ]
    again = max(0.0, whole - FLOAT_BYTES * kept_elements / 2)
    return [
        Sent("all_gather", accumulate * (whole + again), num_ranks, stride),
        Sent("reduce_scatter", accumulate * whole, num_ranks, stride),
    ]


def of_sequence(
    model: Model, size: int, num_tokens: int, recompute: bool = False, value_bytes: int = FLOAT_BYTES
) -> list[Sent]:
    """What sharing clips sends in a step: exchanges of every block, forwards and backwards, and the last states.

    Args:
        model: whose trunk it is.
        size: processes that share a clip.
        num_tokens: tokens that the trunk reads in a step, of all frames of all clips and views of a group.
        recompute: whether blocks run once more in the backward pass.
        value_bytes: of a number in the attention: 2 in bf16.
    """
    if size == 1:
        return []
    tensor = float(num_tokens * model.dim)
    runs = 3 if recompute else 2
    states = FLOAT_BYTES * tensor
    return [
        Sent("all_to_all", model.depth * runs * EXCHANGES * tensor / size * value_bytes, size),
        Sent("all_gather", states, size),
        Sent("reduce_scatter", states, size),
    ]


def of_tensor(
    model: Model, size: int, num_tokens: float, recompute: bool = False, value_bytes: int = FLOAT_BYTES
) -> list[Sent]:
    """What sharing matrices sends in a step: of every block, sums over the group that are as large as its input.

    Forwards they are what leaves attention and feed-forward. Backwards they are the gradients of what enters queries,
    keys with values, and gates with values, each for itself, and in fp32, for it comes from a norm. A block that runs
    again ends before its last sum, which nothing needs.

    Args:
        model: whose trunk it is.
        size: processes that share matrices.
        num_tokens: tokens that the trunk reads in a step, of all clips and views of a group.
        recompute: whether blocks run once more in the backward pass.
        value_bytes: of a number that a product gives: 2 in bf16.
    """
    if size == 1:
        return []
    each = (2 + recompute) * value_bytes + 3 * FLOAT_BYTES
    return [Sent("all_reduce", float(model.depth * model.dim * num_tokens * each), size)]
