"""What the linear decode of blocks leaves out, learned: seams between blocks, and the detail that codes tell of."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, without a norm: how large a latent is says how sure its detail is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Float[Tensor, "item channel row column"]) -> Float[Tensor, "item channel row column"]:
        """Same shape out."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class Refiner(nn.Module):
    """Convolutions over latents, at their grid and at twice that, whose outcome is added to the linear decode.

    It begins as zero, so that an untrained one changes nothing.
    """

    def __init__(self, dim: int, channels: int, block: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, 2 * channels, 3, padding=1),
            PlainBlock(2 * channels),
            PlainBlock(2 * channels),
            nn.Conv2d(2 * channels, 4 * channels, 1),
            nn.PixelShuffle(2),
            PlainBlock(channels),
            PlainBlock(channels),
            zeroed(nn.Conv2d(channels, 3 * (block // 2) ** 2, 3, padding=1)),
            nn.PixelShuffle(block // 2),
        )

    def forward(self, latent: Float[Tensor, "item dim row column"]) -> Float[Tensor, "item 3 height width"]:
        """What is added to frames from -1 to 1."""
        return self.layers(latent)


def zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution, as one whose outcome is zero."""
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution
