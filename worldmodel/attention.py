"""The attention door: rotary positions over (time, row, column) and scaled dot-product attention.

Rotary embedding: Su et al. 2021, "RoFormer". QK-norm: Henry et al. 2020, "Query-Key Normalization for Transformers".
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from worldmodel.errors import SettingsError

Backend = Literal["sdpa", "xformers"]

TIME_SHARE = 0.5  # of a head's channels; the rest is split evenly between rows and columns
SPACE_PERIODS = (0.5, 8.0)  # shortest and longest period, in units of the frame's side
TIME_PERIODS = (2.0, 512.0)  # in frames


def grid_positions(height: int, width: int) -> Float[Tensor, "token 2"]:
    """(row, column) of the cells of a grid, 0 to 1 over the frame, so that every resolution shares coordinates."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return torch.cartesian_prod(rows, columns)


def rotary_angles(
    time_frames: Float[Tensor, " token"], places: Float[Tensor, "token 2"], head_dim: int
) -> Float[Tensor, "token half"]:
    """Rotation angles of every token for half of the head's channels: time, then row, then column."""
    num_time = int(head_dim // 2 * TIME_SHARE)
    num_row = (head_dim // 2 - num_time) // 2
    num_column = head_dim // 2 - num_time - num_row
    coordinates = (time_frames, places[:, 0], places[:, 1])
    sizes = ((num_time, TIME_PERIODS), (num_row, SPACE_PERIODS), (num_column, SPACE_PERIODS))
    angles = [
        coordinate[:, None].double() * _frequencies(count, *periods).to(coordinate.device)
        for coordinate, (count, periods) in zip(coordinates, sizes, strict=True)
    ]
    return torch.cat(angles, 1).remainder(2 * torch.pi).float()


def _frequencies(count: int, shortest: float, longest: float) -> Tensor:
    exponents = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.zeros(count).double()
    return 2 * torch.pi / (shortest * (longest / shortest) ** exponents)


def rotate(
    x: Float[Tensor, "batch head token channel"], angles: Float[Tensor, "token half"]
) -> Float[Tensor, "batch head token channel"]:
    """Rotate the channel pairs of queries or keys by their token's angles, in fp32.

    As complex numbers: one multiplication instead of four and a concatenation.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2).to(x.dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switches autocast off: distances between latents cancel, and must not lose bits to bfloat16."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def frame_mask(num_frames: int, num_tokens: int, window_frames: int) -> Bool[Tensor, "token token"]:
    """True where a token may look: all tokens of its own frame and of the window_frames - 1 frames before it."""
    frame = torch.arange(num_frames).repeat_interleave(num_tokens)
    distance = frame[:, None] - frame[None]
    return (distance >= 0) & (distance < window_frames)


def group_mask(sizes: list[int], prefix: int) -> Bool[Tensor, "token other"]:
    """Block-causal mask of groups of tokens (scales) that all see a prefix: True where a token may look."""
    group = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    causal = group[:, None] >= group[None]
    return torch.cat((torch.ones(len(group), prefix, dtype=torch.bool), causal), 1)


def attend(
    query: Float[Tensor, "batch head token channel"],
    key: Float[Tensor, "batch head other channel"],
    value: Float[Tensor, "batch head other channel"],
    mask: Bool[Tensor, "token other"] | None,
    backend: Backend = "sdpa",
) -> Float[Tensor, "batch head token channel"]:
    """Softmax attention, by torch or by xformers' memory-efficient kernels.

    Raises:
        SettingsError: xformers is asked for without a GPU; it has no kernels for the CPU.
    """
    if backend == "sdpa":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    if not query.is_cuda:
        raise SettingsError(f"attention=xformers needs a CUDA device, not {query.device}: use attention=sdpa there")
    from xformers.ops import memory_efficient_attention

    bias = None
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
        self, x: Float[Tensor, "batch token dim"], angles: Float[Tensor, "token half"]
    ) -> tuple[Float[Tensor, "batch head token channel"], Float[Tensor, "batch head token channel"]]:
        """Rotated keys, and values."""
        key, value = self.key_value(x).unflatten(-1, (2 * self.num_heads, self.head_dim)).transpose(1, 2).chunk(2, 1)
        return rotate(self.key_norm(key.float()), angles).to(value.dtype), value

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        angles: Float[Tensor, "token half"],
        key: Float[Tensor, "batch head other channel"],
        value: Float[Tensor, "batch head other channel"],
        mask: Bool[Tensor, "token other"] | None,
    ) -> Float[Tensor, "batch token dim"]:
        """Attend from x to the given keys and values; without a mask every token sees all of them."""
        query = self.query(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        query = rotate(self.query_norm(query.float()), angles).to(value.dtype)
        attended = attend(query, key, value, mask, self.backend)
        return self.out(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-dim * 8 // 3 // 32) * 32
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
    """

    def __init__(self, dim: int, num_heads: int, backend: Backend = "sdpa") -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(dim, bias=False), Attention(dim, num_heads, backend)
        self.feed_norm, self.feed = nn.LayerNorm(dim, bias=False), FeedForward(dim)
        self.recompute = False

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        angles: Float[Tensor, "token half"],
        past: tuple[Tensor, Tensor] | None,
        mask: Bool[Tensor, "token other"] | None,
    ) -> tuple[Float[Tensor, "batch token dim"], tuple[Tensor, Tensor]]:
        """Attend to `past` keys and values and to x itself; return the output and all keys and values."""
        if self.recompute and torch.is_grad_enabled():
            # Nothing is drawn inside a block, so there are no random states to bring back.
            return checkpoint(self.run, x, angles, past, mask, use_reentrant=False, preserve_rng_state=False)
        return self.run(x, angles, past, mask)

    def run(
        self, x: Tensor, angles: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What `forward` does, whose activations are all kept."""
        normed = self.attention_norm(x)
        key, value = self.attention.keys_values(normed, angles)
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        x = x + self.attention(normed, angles, key, value, mask)
        return x + self.feed(self.feed_norm(x)), (key, value)
