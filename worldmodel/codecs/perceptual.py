"""A distance of pictures that sees as a trained network does: VGG16's features (Zhang et al. 2018, "LPIPS").

Its weights are a file of the user's, in torchvision's names (features.0.weight, ...); nothing is downloaded.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worldmodel.errors import SettingsError

# The convolutions of VGG16 by their number in torchvision's `features`; between the groups the picture is halved.
GROUPS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in 0..1


class PerceptualDistance(nn.Module):
    """Squared distance of the features behind each of VGG16's five groups, each of unit length at every place.

    LPIPS weighs the channels by how people judged; here all count alike, its "uncalibrated" form.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Takes the weights by torchvision's names; they are not trained, and no part of a checkpoint.

        Raises:
            KeyError: a convolution is missing.
        """
        super().__init__()
        for number in (number for group in GROUPS for number in group):
            for part in ("weight", "bias"):
                tensor = weights[f"features.{number}.{part}"].float()
                self.register_buffer(f"{part}_{number}", tensor, persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)

    def forward(
        self, rebuilt: Float[Tensor, "item 3 height width"], truth: Float[Tensor, "item 3 height width"]
    ) -> Float[Tensor, ""]:
        """Mean over places and items, summed over the groups; pictures are from -1 to 1, at least 16 pixels a side."""
        with torch.no_grad():
            wanted = self.features(truth)
        pairs = zip(self.features(rebuilt), wanted, strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in pairs]).sum()

    def features(self, frames: Tensor) -> list[Tensor]:
        """What is seen behind every group, of unit length at every place."""
        x, out = ((frames + 1) / 2 - self.mean) / self.spread, []
        for index, group in enumerate(GROUPS):
            if index > 0:
                x = F.max_pool2d(x, 2)
            for number in group:
                x = F.relu(F.conv2d(x, getattr(self, f"weight_{number}"), getattr(self, f"bias_{number}"), padding=1))
            out.append(F.normalize(x.float(), dim=1, eps=1e-6))
        return out


def load_perceptual(path: str | None, sha256: str | None) -> PerceptualDistance:
    """The distance whose weights lie in a file.

    Raises:
        SettingsError: no file or hash is named, its content has another hash, or it is not VGG16.
    """
    if path is None or sha256 is None:
        raise SettingsError(
            "picture_loss.perceptual_weight needs the weights of VGG16: name a .safetensors file with "
            "picture_loss.perceptual_file and its hash with picture_loss.perceptual_sha256, or set the weight to 0"
        )
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if found != sha256.lower():
            raise SettingsError(
                f"{path} has the SHA-256 {found}, and picture_loss.perceptual_sha256 is {sha256}: restore the file, or "
                "name the hash of the file you trust"
            )
        return PerceptualDistance(load_file(path))
    except (OSError, SafetensorError, KeyError) as error:
        raise SettingsError(
            f"picture_loss.perceptual_file={path} is not VGG16 in torchvision's names ({error}): give its weights as "
            ".safetensors"
        ) from error
