"""The attention door: rotary positions over (time, row, column) and scaled dot-product attention.

Rotary embedding: Su et al. 2021, "RoFormer". QK-norm: Henry et al. 2020, "Query-Key Normalization for Transformers".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from worldmodel.errors import SettingsError
from worldmodel.sight import Sight, pieces_of

Backend = Literal["sdpa", "dense", "flex", "xformers"]
# What `attend` does, of all tokens or of a process's part of them.
Attend = Callable[[Tensor, Tensor, Tensor, Sight | None, Backend], Tensor]

TIME_SHARE = 0.5  # of a head's channels; the rest is split evenly between rows and columns
SPACE_PERIODS = (0.5, 8.0)  # shortest and longest period, in units of the frame's side
TIME_PERIODS = (2.0, 512.0)  # in frames


def grid_positions(height: int, width: int) -> Float[Tensor, "token 2"]:
    """(row, column) of the cells of a grid, 0 to 1 over the frame, so that every resolution shares coordinates."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return torch.cartesian_prod(rows, columns)


def rotary_turns(
    time_frames: Float[Tensor, " token"], places: Float[Tensor, "token 2"], head_dim: int
) -> Complex[Tensor, "token half"]:
    """Rotations of every token, as complex numbers, for half of the head's channels: time, then row, then column."""
    coordinates = torch.cat((time_frames[:, None].double(), places.double()), 1)
    return turns_of(coordinates @ rotary_frequencies(head_dim).to(places.device))


def turns_of(angles: Float[Tensor, "token half"]) -> Complex[Tensor, "token half"]:
    """Complex numbers of length one; large angles lose no bits before they are taken round the circle."""
    angles = angles.remainder(2 * torch.pi).float()
    return torch.polar(torch.ones_like(angles), angles)


def rotary_frequencies(head_dim: int) -> Float[Tensor, "3 half"]:
    """By how much a unit of time, of rows and of columns each turns half of the head's channels, in fp64."""
    num_time = int(head_dim // 2 * TIME_SHARE)
    num_row = (head_dim // 2 - num_time) // 2
    num_column = head_dim // 2 - num_time - num_row
    sizes = ((num_time, TIME_PERIODS), (num_row, SPACE_PERIODS), (num_column, SPACE_PERIODS))
    return torch.block_diag(*(_frequencies(count, *periods)[None] for count, periods in sizes))


def _frequencies(count: int, shortest: float, longest: float) -> Tensor:
    exponents = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.zeros(count).double()
    return 2 * torch.pi / (shortest * (longest / shortest) ** exponents)


def rotate(
    x: Float[Tensor, "batch head token channel"], turns: Complex[Tensor, "token half"]
) -> Float[Tensor, "batch head token channel"]:
    """Rotate the channel pairs of queries or keys by their token's turns, in fp32.

    As complex numbers: one multiplication instead of four and a concatenation.
    """
    assert turns.is_complex(), "turns lose their angles where all of a model is made real numbers of another kind"
    if not x.requires_grad:  # the same in fewer steps, which have no gradient
        return (x.float().view(torch.complex64) * turns).view(torch.float32).to(x.dtype)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switches autocast off: distances between latents cancel, and must not lose bits to bfloat16."""
    on = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def attend(
    query: Float[Tensor, "batch head token channel"],
    key: Float[Tensor, "batch head other channel"],
    value: Float[Tensor, "batch head other channel"],
    sight: Sight | None,
    backend: Backend = "sdpa",
) -> Float[Tensor, "batch head token channel"]:
    """Softmax attention; without a sight every query sees all keys.

    Backends: `sdpa` is torch's scaled_dot_product_attention, cut on the CPU into calls that need no mask where that was
    measured to be faster; `dense` is the same in one call with a mask; `flex` is torch's FlexAttention, compiled;
    `xformers` has memory-efficient kernels.

    Raises:
        SettingsError: xformers is asked for without a GPU, or flex for a gradient without one; there are no kernels.
    """
    if backend == "xformers":
        return _attend_by_xformers(query, key, value, sight)
    if sight is None:
        return F.scaled_dot_product_attention(query, key, value)
    if backend == "flex":
        return _attend_by_flex(query, key, value, sight)
    pieces = pieces_of(sight, query.device, backend == "sdpa" and query.device.type == "cpu")
    queries = runs_of(query, [piece.queries for piece in pieces])
    keys, values = (runs_of(each, [piece.keys for piece in pieces]) for each in (key, value))
    outs = [
        F.scaled_dot_product_attention(q, k, v, attn_mask=piece.mask)
        for q, k, v, piece in zip(queries, keys, values, pieces, strict=True)
    ]
    # A token's heads stay side by side, as the next layer wants them.
    return outs[0] if len(outs) == 1 else torch.cat([out.transpose(1, 2) for out in outs], 1).transpose(1, 2)


def runs_of(x: Float[Tensor, "batch head token channel"], runs: list[slice]) -> Sequence[Tensor]:
    """Runs of the tokens, which may overlap."""
    if len(runs) > 1 and torch.is_grad_enabled() and x.requires_grad:
        return Runs.apply(x, runs)  # type: ignore[return-value]
    return [x[:, :, run] for run in runs]


class Runs(torch.autograd.Function):
    """Runs of the tokens. Backwards, all are added up in one tensor, where each slice would fill one as large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, runs: list[slice]) -> tuple[Tensor, ...]:
        """Cuts the runs out."""
        ctx.runs, ctx.shape = runs, x.shape
        return tuple(x[:, :, run] for run in runs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Adds their gradients up."""
        batch, head, token, channel = ctx.shape
        whole = gradients[0].new_zeros(batch, token, head, channel).transpose(1, 2)
        for run, gradient in zip(ctx.runs, gradients, strict=True):
            whole[:, :, run] += gradient
        return whole, None


def _attend_by_flex(query: Tensor, key: Tensor, value: Tensor, sight: Sight) -> Tensor:
    if torch.is_grad_enabled() and query.requires_grad and query.device.type == "cpu":
        raise SettingsError("attention=flex has no gradient on the CPU: train with attention=sdpa, or on a GPU")
    return _flex_kernel()(query, key, value, block_mask=_block_mask(sight, query.device))


@lru_cache(maxsize=1)
def _flex_kernel() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)  # uncompiled it would hold all scores at once


@lru_cache(maxsize=64)
def _block_mask(sight: Sight, device: torch.device) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    # It is kept, and may be needed for a gradient after inference mode has made it.
    with torch.inference_mode(False):
        starts, stops = (bound.to(device) for bound in sight.bounds())
        seen = lambda batch, head, query, key: (key >= starts[query]) & (key < stops[query])  # noqa: E731
        return create_block_mask(seen, None, None, sight.num_queries, max(sight.stops), device=device.type)


def _attend_by_xformers(query: Tensor, key: Tensor, value: Tensor, sight: Sight | None) -> Tensor:
    if not query.is_cuda:
        raise SettingsError(f"attention=xformers needs a CUDA device, not {query.device}: use attention=sdpa there")
    from xformers.ops import memory_efficient_attention

    bias, mask = None, None
    if sight is not None:
        (piece,) = pieces_of(sight, query.device, False)
        key, value, mask = key[:, :, piece.keys], value[:, :, piece.keys], piece.mask
    if mask is not None:
        # The kernels read rows of a multiple of 8, so the bias is cut out of a wider one.
        wide = query.new_full((*mask.shape[:1], -(-mask.shape[1] // 8) * 8), -torch.inf)
        bias = wide[:, : mask.shape[1]].masked_fill_(mask, 0.0).expand(*query.shape[:2], -1, -1)
    heads_last = (x.transpose(1, 2) for x in (query, key, value))
    return memory_efficient_attention(*heads_last, attn_bias=bias).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention whose keys and values may come from an earlier call (a cache) or another sequence."""

    def __init__(self, dim: int, num_heads: int, backend: Backend = "sdpa") -> None:
        super().__init__()
        if dim % num_heads or dim // num_heads < 16 or dim // num_heads % 8:
            raise ValueError(
                f"dim={dim} with num_heads={num_heads}: each head needs a multiple of 8 channels, and 16 at least, "
                "to tell times and places apart"
            )
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.backend: Backend = backend
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_norm = nn.LayerNorm(self.head_dim, bias=False)
        self.key_norm = nn.LayerNorm(self.head_dim, bias=False)

    def keys_values(
        self, x: Float[Tensor, "batch token dim"], turns: Complex[Tensor, "token half"]
    ) -> tuple[Float[Tensor, "batch head token channel"], Float[Tensor, "batch head token channel"]]:
        """Rotated keys, and values."""
        key, value = self.key_value(x).unflatten(-1, (2 * self.num_heads, self.head_dim)).chunk(2, 2)
        return self._turned(self.key_norm, key, turns), value.transpose(1, 2)

    def queries(
        self, x: Float[Tensor, "batch token dim"], turns: Complex[Tensor, "token half"]
    ) -> Float[Tensor, "batch head token channel"]:
        """Rotated queries."""
        return self._turned(self.query_norm, self.query(x).unflatten(-1, (self.num_heads, self.head_dim)), turns)

    @staticmethod
    def _turned(norm: nn.LayerNorm, x: Tensor, turns: Tensor) -> Tensor:
        # Normed where a token's heads are side by side: after the transposition it would be a copy.
        return rotate(norm(x.float()).transpose(1, 2), turns).to(x.dtype)

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        turns: Complex[Tensor, "token half"],
        key: Float[Tensor, "batch head other channel"],
        value: Float[Tensor, "batch head other channel"],
        sight: Sight | None,
        by: Attend = attend,
    ) -> Float[Tensor, "batch token dim"]:
        """Attend from x to the given keys and values; without a sight every token sees all of them."""
        attended = by(self.queries(x, turns), key, value, sight, self.backend)
        return self.out(attended.transpose(1, 2).flatten(2))

    def products_flops(
        self, x: Tensor, turns: Tensor, key: Tensor, value: Tensor, sight: Sight | None, *_by: Attend
    ) -> int:
        """Operations of attention itself: of the pairs that see each other, whatever a kernel computes besides."""
        # Processes that share clips have a part of the queries that the sight is of.
        pairs = x.shape[1] * key.shape[2] if sight is None else sight.num_pairs * x.shape[1] // sight.num_queries
        return 4 * len(x) * self.num_heads * self.head_dim * pairs


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
        past: tuple[Tensor, Tensor] | None,
        sight: Sight | None,
        by: Attend = attend,
    ) -> tuple[Float[Tensor, "batch token dim"], tuple[Tensor, Tensor]]:
        """Attend to `past` keys and values and to x itself; return the output and all keys and values."""
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

    def run(
        self, x: Tensor, turns: Tensor, past: tuple[Tensor, Tensor] | None, sight: Sight | None, by: Attend = attend
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What `forward` does, whose activations are all kept."""
        if self.compiled and self.training and torch.is_grad_enabled():
            return self._run_compiled(x, turns, past, sight, by)
        normed = self.attention_norm(x)
        key, value = self.attention.keys_values(normed, turns)
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        x = x + self.attention(normed, turns, key, value, sight, by)
        return x + self.feed(self.feed_norm(x)), (key, value)

    def _run_compiled(
        self, x: Tensor, turns: Tensor, past: tuple[Tensor, Tensor] | None, sight: Sight | None, by: Attend
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The same by compiled code; attention is not in it, which has kernels of its own and many forms."""
        enter, leave = compiled_parts()
        # Code is made anew for views of something else: the first block's input, and parts of complex numbers.
        x = x.clone() if x._is_view() else x
        query, key, value = enter(self, x, turns.real.clone(), turns.imag.clone())
        if past is not None:
            key, value = torch.cat((halves_first(past[0]), key), 2), torch.cat((past[1], value), 2)
        out = leave(self, x, by(query, key, value, sight, self.attention.backend))
        return out, (pairs_first(key), value)


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


def pairs_first(x: Tensor) -> Tensor:
    """Channels in the order that they have outside."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


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
