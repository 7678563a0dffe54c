"""The door to kornia: resizing frames and moving their pixels along a flow."""

import kornia
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def resize_crop(
    frames: UInt8[Tensor, "frame 3 rows columns"], height: int, width: int
) -> UInt8[Tensor, "frame 3 {height} {width}"]:
    """Scales (antialiased, aspect kept) until the shorter side fits, and cuts the rest at the centre.

    Frames that have this size already are returned as they are.
    """
    rows, columns = frames.shape[-2:]
    if (rows, columns) == (height, width):
        return frames
    factor = max(height / rows, width / columns)
    fitted = max(height, round(rows * factor)), max(width, round(columns * factor))
    scaled = torch.nn.functional.interpolate(frames, fitted, mode="bilinear", antialias=True, align_corners=False)
    top, left = (fitted[0] - height) // 2, (fitted[1] - width) // 2
    return scaled[..., top : top + height, left : left + width].contiguous()


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
    height, width = frames.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device, dtype=flow.dtype),
        torch.arange(width, device=flow.device, dtype=flow.dtype),
        indexing="ij",
    )
    return kornia.geometry.transform.remap(
        frames, columns + flow[:, 0], rows + flow[:, 1], mode="bilinear", padding_mode="border", align_corners=True
    )
