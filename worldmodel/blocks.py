"""Blocks of a transformer: attention, then a gated feed-forward layer, each before a sum; also as compiled code."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from worldmodel.attention import Attend, Attention, Backend, attend
from worldmodel.sight import Sight
from worldmodel.slots import Layer, Slot


def hidden_of(dim: int) -> int:
    """Channels between the two layers of a feed-forward: 8/3 of its own, up to a multiple of 32."""
    return -(-dim * 8 // 3 // 32) * 32


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = hidden_of(dim)
        self.gate_value = nn.Linear(dim, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Same shape out."""
        gate, value = self.gate_value(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class Block(nn.Module):
    """Pre-norm attention and feed-forward.

    Attributes:
        recompute: keep only the inputs for the backward pass, which runs the block again (Chen et al. 2016).
        compiled: what is before and after attention runs as compiled code while it is trained.
    """

    def __init__(self, dim: int, num_heads: int, backend: Backend = "sdpa") -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(dim, bias=False), Attention(dim, num_heads, backend)
        self.feed_norm, self.feed = nn.LayerNorm(dim, bias=False), FeedForward(dim)
        self.recompute, self.compiled = False, False

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        turns: Complex[Tensor, "token half"],
        past: Layer | None,
        sight: Sight | None,
        by: Attend = attend,
    ) -> Float[Tensor, "batch token dim"]:
        """Attend to `past` keys and values and to x itself."""
        if self.recompute and torch.is_grad_enabled():
            # Nothing is drawn inside a block, so there are no random states to bring back.
            return checkpoint(
                self.run,
                x,
                turns,
                past,
                sight,
                by,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=as_before,
            )
        return self.run(x, turns, past, sight, by)

    def run(self, x: Tensor, turns: Tensor, past: Layer | None, sight: Sight | None, by: Attend = attend) -> Tensor:
        """What `forward` does, whose activations are all kept."""
        if self.compiled and self.training and torch.is_grad_enabled():
            return self._run_compiled(x, turns, past, sight, by)
        return self.extend(x, turns, past, sight, by)[0]

    def extend(
        self,
        x: Float[Tensor, "batch token dim"],
        turns: Complex[Tensor, "token half"],
        past: Layer | Slot | None,
        sight: Sight | None,
        by: Attend = attend,
    ) -> tuple[Float[Tensor, "batch token dim"], Layer]:
        """What `forward` gives, and all keys and values seen; never compiled, and nothing is recomputed."""
        normed = self.attention_norm(x)
        key, value = joined(past, self.attention.keys_values(normed, turns))
        x = x + self.attention(normed, turns, key, value, sight, by)
        return x + self.feed(self.feed_norm(x)), (key, value)

    def _run_compiled(self, x: Tensor, turns: Tensor, past: Layer | None, sight: Sight | None, by: Attend) -> Tensor:
        """The same by compiled code; attention is not in it, which has kernels of its own and many forms."""
        enter, leave = compiled_parts()
        # Code is made anew for views of something else: the first block's input, and parts of complex numbers.
        x = x.clone() if x._is_view() else x
        query, key, value = enter(self, x, turns.real.clone(), turns.imag.clone())
        ordered = None if past is None else (halves_first(past[0]), past[1])
        key, value = joined(ordered, (key, value))
        return leave(self, x, by(query, key, value, sight, self.attention.backend))


def joined(past: Layer | Slot | None, new: Layer) -> Layer:
    """Earlier keys and values with the new ones, behind them or in their slot."""
    if isinstance(past, Slot):
        return past.take(new)
    return new if past is None else (torch.cat((past[0], new[0]), 2), torch.cat((past[1], new[1]), 2))


def enter(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a block does before attention: queries, keys and values, (batch, head, token, channel).

    The channels of queries and keys are in another order than those of `Attention`, which changes no score: first the
    first of each pair that turns together, then the second. So loops run over neighbours in memory.
    """
    normed, attention = block.attention_norm(x), block.attention
    shape, half = (attention.num_heads, attention.head_dim), attention.head_dim // 2
    key_weight, value_weight = attention.key_value.weight.chunk(2)
    turned = []
    for norm, weight in ((attention.query_norm, attention.query.weight), (attention.key_norm, key_weight)):
        ordered = halves_first(weight.T.unflatten(-1, shape)).flatten(-2)
        gain = halves_first(norm.weight)
        rows = F.linear(normed, ordered.T).unflatten(-1, shape)
        turned.append(turn(F.layer_norm(rows.float(), (2 * half,), gain, None, norm.eps), cos, sin).to(rows.dtype))
    value = F.linear(normed, value_weight).unflatten(-1, shape)
    return turned[0].transpose(1, 2), turned[1].transpose(1, 2), value.transpose(1, 2)


def halves_first(x: Tensor) -> Tensor:
    """Channels in the order that compiled code has: the first of each pair, then the second of each."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What `rotate` does, where the first of all pairs come first, (batch, token, head, channel)."""
    first, second = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


def leave(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    """What a block does after attention."""
    x = x + block.attention.out(attended.transpose(1, 2).flatten(2))
    normed = block.feed_norm(x)
    # Two products: halves of one would be joined again backwards.
    gate, value = (F.linear(normed, weight) for weight in block.feed.gate_value.weight.chunk(2))
    return x + block.feed.out(F.silu(gate) * value)


@lru_cache(maxsize=1)
def compiled_parts() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`enter` and `leave`, compiled once for all blocks of a shape, whatever the number of tokens."""
    return torch.compile(enter, dynamic=True), torch.compile(leave, dynamic=True)


def as_before() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Around a block that is run again: compiled if it was, though the rest of the backward pass must not compile."""
    return nullcontext(), compiling()


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, torch.compile does what it does by default. Its stance is set at once, and not when this is made."""
    with torch.compiler.set_stance("default"):
        yield
