"""Clips encoded in the order of their frames, and in the three orders that views need."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

# Codes of one frame of several clips, from its latents and the codes of the frame before (None at a clip's start).
EncodeFrame = Callable[[Tensor, Tensor | None], Tensor]
# Codes of the first frames of every clip alone, from latents (batch, frame, ...) and how many of each clip are wanted.
EncodeBeginnings = Callable[[Tensor, Sequence[int]], Tensor]


def frame_by_frame(encode_frame: EncodeFrame, num_codes: int) -> EncodeBeginnings:
    """Encodes the first frames of clips one after the other; the codes of the others are zero and cost nothing."""

    def encode(latent: Tensor, lengths: Sequence[int]) -> Tensor:
        longest_first = sorted(range(len(lengths)), key=lambda clip: -lengths[clip])
        latent = latent[longest_first]
        codes = torch.zeros(*latent.shape[:2], num_codes, dtype=torch.int64, device=latent.device)
        for frame in range(max(lengths)):
            running = sum(length > frame for length in lengths)
            previous = codes[:running, frame - 1] if frame > 0 else None
            codes[:running, frame] = encode_frame(latent[:running, frame], previous)
        return codes[np.argsort(longest_first)]

    return encode


def encode_views(
    encode_beginnings: EncodeBeginnings, latent: Tensor, lengths: Sequence[Sequence[int]] | None
) -> tuple[Int[Tensor, "batch frame code"], Int[Tensor, "batch frame code"], Int[Tensor, "batch half code"]]:
    """Codes of clips as they are, reversed, and of every second frame, each encoded in its own order.

    Args:
        encode_beginnings: of clips in the order of their frames.
        latent: of clips, (batch, frame, ...).
        lengths: of every view, how many of its first frames are wanted of each clip; all if None.
    """
    (num_clips, num_frames), half = latent.shape[:2], latent.shape[1] // 2
    fast = torch.cat((latent[:, : 2 * half : 2], latent[:, half:]), 1)  # filled up to the others' length
    wanted = lengths or ([num_frames] * num_clips, [num_frames] * num_clips, [half] * num_clips)
    views = torch.cat((latent, latent.flip(1), fast))
    forwards, backwards, hurried = encode_beginnings(views, list(itertools.chain(*wanted))).chunk(3)
    return forwards, backwards, hurried[:, :half]
