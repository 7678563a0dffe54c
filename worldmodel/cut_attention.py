"""Softmax attention on the CPU in pieces, most of which need no mask, with a backward pass of its own."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from worldmodel.sight import Piece

# What scaled_dot_product_attention calls on a CPU (Dao et al. 2022, "FlashAttention"), and its gradient.
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_in_pieces(
    query: Float[Tensor, "batch head token channel"],
    key: Float[Tensor, "batch head other channel"],
    value: Float[Tensor, "batch head other channel"],
    pieces: Sequence[Piece],
) -> Float[Tensor, "batch head token channel"]:
    """Each piece's queries attend to its keys; the pieces follow each other, and are all queries together."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        return InPieces.apply(*(in_rows(x) for x in (query, key, value)), pieces)  # type: ignore[return-value]
    outs = [
        F.scaled_dot_product_attention(
            query[:, :, piece.queries], key[:, :, piece.keys], value[:, :, piece.keys], attn_mask=piece.mask
        )
        for piece in pieces
    ]
    # A token's heads stay side by side, as the next layer wants them.
    return outs[0] if len(outs) == 1 else torch.cat([out.transpose(1, 2) for out in outs], 1).transpose(1, 2)


class InPieces(torch.autograd.Function):
    """The pieces as one operation.

    The gradients of all pieces are added up in one tensor, where a gradient of each slice would be one as large. Those
    of bfloat16 are computed in fp32: torch's kernel takes 1.5 to 5 times as long for them in bfloat16 (heads of 32
    channels, 64 to 512 keys, a Xeon with AMX).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """Attends, and keeps the logarithms of the softmaxes' sums."""
        whole, sums = empty_like(query), []
        for piece in pieces:
            seen = key[:, :, piece.keys], value[:, :, piece.keys]
            whole[:, :, piece.queries], total = FORWARD(
                query[:, :, piece.queries], *seen, attn_mask=added(piece.mask, query.dtype)
            )
            sums.append(total)
        ctx.pieces = pieces
        ctx.save_for_backward(query, key, value, whole, *sums)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Adds the gradients of the pieces up."""
        saved = ctx.saved_tensors  # asked for once: where a block is run again they are there once
        kind, sums = saved[0].dtype, saved[4:]
        wide = torch.promote_types(kind, torch.float32)
        query, key, value, whole = (x.to(wide) for x in saved[:4])
        pull = in_rows(gradients[0].to(wide))
        of_query, of_key, of_value = empty_like(query), empty_like(key).zero_(), empty_like(value).zero_()
        for piece, total in zip(ctx.pieces, sums, strict=True):
            rows, seen = piece.queries, piece.keys
            of_query[:, :, rows], more_of_key, more_of_value = BACKWARD(
                pull[:, :, rows], query[:, :, rows], key[:, :, seen], value[:, :, seen], whole[:, :, rows], total,
                0.0, False, attn_mask=added(piece.mask, wide),
            )  # fmt: skip
            of_key[:, :, seen] += more_of_key
            of_value[:, :, seen] += more_of_value
        return of_query.to(kind), of_key.to(kind), of_value.to(kind), None


def in_rows(x: Tensor) -> Tensor:
    """The same with the channels of a head side by side, without which the kernels read what is not theirs."""
    return x if x.stride(-1) == 1 else x.contiguous()


def empty_like(x: Tensor) -> Tensor:
    """As large as x, with a token's heads side by side, as the layers around attention have them."""
    batch, head, token, channel = x.shape
    return x.new_empty(batch, token, head, channel).transpose(1, 2)


def added(mask: Tensor | None, kind: torch.dtype) -> Tensor | None:
    """What the kernel adds to scores: nothing where a query sees a key, minus infinity elsewhere."""
    return None if mask is None else torch.zeros_like(mask, dtype=kind).masked_fill_(~mask, -torch.inf)
