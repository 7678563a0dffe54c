"""The attention door: rotary positions over (time, row, column) and scaled dot-product attention.

Rotary embedding: Su et al. 2021, "RoFormer". QK-norm: Henry et al. 2020, "Query-Key Normalization for Transformers".
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from worldmodel.cut_attention import attend_in_pieces
from worldmodel.errors import SettingsError
from worldmodel.sight import Piece, Sight, pieces_of

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
    cut = backend == "sdpa" and query.device.type == "cpu"
    if sight is None:
        whole = (Piece(slice(0, query.shape[2]), slice(0, key.shape[2]), None),)
        return attend_in_pieces(query, key, value, whole) if cut else F.scaled_dot_product_attention(query, key, value)
    if backend == "flex":
        return _attend_by_flex(query, key, value, sight)
    if cut:
        return attend_in_pieces(query, key, value, pieces_of(sight, query.device, True))
    (piece,) = pieces_of(sight, query.device, False)
    return F.scaled_dot_product_attention(query, key[:, :, piece.keys], value[:, :, piece.keys], attn_mask=piece.mask)


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
