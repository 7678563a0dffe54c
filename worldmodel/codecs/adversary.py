"""A patch discriminator beside the codec (Isola et al. 2017), and its losses as VQGAN has them (Esser et al. 2021).

The codec and its adversary want opposite things of one number, and the loop has one loss and one optimizer. So the
loss is written such that each gets its own gradient alone.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Tells for every patch whether it is of a true picture: positive for yes. Pictures do not see each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for fine, coarse in itertools.pairwise(widths):
            layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), nn.GroupNorm(1, coarse), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, frames: Float[Tensor, "item 3 height width"]) -> Float[Tensor, "item 1 row column"]:
        """Logits of the patches."""
        return self.layers(frames).float()


def adversarial_losses(
    discriminator: nn.Module,
    truth: Float[Tensor, "item 3 height width"],
    rebuilt: Float[Tensor, "item 3 height width"],
    reconstruction: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What to add to a codec's loss: one term that trains the codec alone, and one that trains the discriminator alone.

    The first has the value 0. Its gradient pulls `rebuilt` towards what the discriminator takes for true, as strongly
    as `reconstruction` pulls it (VQGAN's adaptive weight; measured at the pictures, and not at the last layer's
    weights, which an engine may have sharded).

    Args:
        discriminator: gives logits of patches.
        truth: true pictures.
        rebuilt: of the codec, with its graph.
        reconstruction: the codec's loss of `rebuilt`.

    Returns:
        The codec's term, and the hinge loss of the discriminator.
    """
    fake, real = discriminator(rebuilt.detach()), discriminator(truth)
    hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    # The same logits with and without the codec's graph: of the difference, the discriminator's gradient is zero.
    fooled = fake.mean() - discriminator(rebuilt).mean()
    pulls = [torch.autograd.grad(loss, rebuilt, retain_graph=True)[0].norm() for loss in (reconstruction, fooled)]
    weight = (pulls[0] / (pulls[1] + 1e-6)).clamp(max=1e4)
    return weight.detach() * fooled, hinge
