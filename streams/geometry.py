"""Resizing frames; the door to kornia, which moves their pixels along a flow and says how similar they are."""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


class Box(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_box(rows: int, columns: int, height: int, width: int, pixel_aspect: float = 1.0) -> Box:
    """The largest centred part of a frame that has the aspect of (height, width).

    Its sides and place are even numbers where anything is cut, so that subsampled colours are cut at the same place.

    Args:
        rows: of the frame.
        columns: of the frame.
        height: of the size that is wanted.
        width: of the size that is wanted.
        pixel_aspect: width of the frame's pixels over their height.
    """
    wide = rows * width / height / pixel_aspect
    if round(wide) < columns:
        kept = max(2, 2 * round(wide / 2))
        return Box(0, 2 * round((columns - kept) / 4), rows, min(kept, columns))
    high = columns * height / width * pixel_aspect
    if round(high) < rows:
        kept = max(2, 2 * round(high / 2))
        return Box(2 * round((rows - kept) / 4), 0, min(kept, rows), columns)
    return Box(0, 0, rows, columns)


def resize_crop(
    frames: UInt8[Tensor, "frame 3 rows columns"], height: int, width: int, pixel_aspect: float = 1.0
) -> UInt8[Tensor, "frame 3 {height} {width}"]:
    """Cuts frames at the centre to the aspect of (height, width) and scales them, antialiased.

    Frames that have this size already are returned as they are.
    """
    rows, columns = frames.shape[-2:]
    box = crop_box(rows, columns, height, width, pixel_aspect)
    kept = frames[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if kept.shape[-2:] == (height, width):
        return frames if kept.shape == frames.shape else kept.contiguous()
    return torch.nn.functional.interpolate(kept, (height, width), mode="bilinear", antialias=True, align_corners=False)


def warp(
    frames: Float[Tensor, "batch channel height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Looks up every pixel where the flow points: output[p] = frames[p + flow[p]].

    Bilinear; beyond the border the border's value. With the flow from frame t to t + 1 and frame t + 1 as `frames`, the
    output is frame t.

    Args:
        frames: what is looked up.
        flow: displacement (x, y) in pixels.
    """
    # Workers that decode never need it, and importing it takes a second.
    import kornia

    height, width = frames.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device, dtype=flow.dtype),
        torch.arange(width, device=flow.device, dtype=flow.dtype),
        indexing="ij",
    )
    return kornia.geometry.transform.remap(
        frames, columns + flow[:, 0], rows + flow[:, 1], mode="bilinear", padding_mode="border", align_corners=True
    )


def structural_similarity(
    frames: UInt8[Tensor, "frame 3 height width"], reference: UInt8[Tensor, "frame 3 height width"]
) -> Float[Tensor, " frame"]:
    """SSIM of every frame, 1 where they are equal (Wang et al. 2004): mean over colours and all whole windows.

    Args:
        frames: of 11 rows and columns at least, the side of the Gaussian window.
        reference: what they are compared to.
    """
    import kornia

    similar = kornia.metrics.ssim(frames.float() / 255, reference.float() / 255, 11, padding="valid")
    return similar.mean(dim=(1, 2, 3))
