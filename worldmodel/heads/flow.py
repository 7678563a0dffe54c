"""Head: optical flow, learned from the pictures alone by warping (Yu et al. 2016, "Back to Basics").

The state after frame t tells where every place of frame t came from: frame t-1 warped by the flow must look like
frame t. Compared at several sizes, so that motions larger than a pixel have a slope to follow.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from streams.clip import to_float
from streams.geometry import warp
from worldmodel.heads.readout import HeadResult

CELLS = 4  # flow vectors along each side of a token
NUM_SIZES = 3  # thumbnails are compared at full, half and quarter size
SMOOTHNESS = 0.02


class Flow(nn.Module):
    """Flow of every frame from its state; the score is the share of the change that warping explains."""

    chance = 0.0

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        last = nn.Linear(dim, 2 * CELLS * CELLS)
        nn.init.zeros_(last.weight)  # start at no motion
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), last)

    def flow(
        self, states: Float[Tensor, "item token dim"], height: int, width: int
    ) -> Float[Tensor, "item 2 {height} {width}"]:
        """Where each pixel of a frame came from in the frame before, as (x, y) displacement in pixels."""
        rows, columns = self.grid
        cells = self.layers(states[:, : rows * columns]).float().transpose(1, 2).unflatten(2, self.grid)
        return F.interpolate(F.pixel_shuffle(cells, CELLS), (height, width), mode="bilinear") * height / 16

    def forward(
        self,
        states: Float[Tensor, "batch frame token dim"],
        thumbnails: UInt8[Tensor, "batch frame 3 height width"],
    ) -> HeadResult:
        """Photometric loss and, per clip, 1 minus the warped difference over the plain difference of two frames."""
        height, width = thumbnails.shape[-2:]
        frames = to_float(thumbnails)
        before, after = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        flow = self.flow(states[:, 1:].flatten(0, 1), height, width)
        warped = warp(before, flow)
        loss = SMOOTHNESS * smoothness(flow, after)
        for size in range(NUM_SIZES):
            small_before, small_after = (F.avg_pool2d(x, 2**size) if size else x for x in (before, after))
            small_flow = F.avg_pool2d(flow, 2**size) / 2**size if size else flow
            loss = loss + charbonnier(warp(small_before, small_flow) - small_after).mean() / NUM_SIZES
        shape = (len(thumbnails), -1)
        left = (warped - after).abs().flatten(1).mean(1).view(shape).sum(1)
        plain = (before - after).abs().flatten(1).mean(1).view(shape).sum(1)
        return HeadResult(loss, (1 - left / plain.clamp(min=1e-6)).detach())


def charbonnier(difference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A smooth absolute value, forgiving to what no flow explains (Charbonnier et al. 1994)."""
    return (difference.square() + 1e-3**2).sqrt()


def smoothness(flow: Float[Tensor, "item 2 height width"], frames: Float[Tensor, "item 3 height width"]) -> Tensor:
    """Mean slope of the flow, counted less where the picture has an edge."""
    total = flow.new_zeros(())
    for axis in (-1, -2):
        edges = torch.exp(-10 * frames.diff(dim=axis).abs().mean(1, keepdim=True))
        total = total + (edges * charbonnier(flow.diff(dim=axis))).mean()
    return total
