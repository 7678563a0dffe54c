import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldmodel.codecs.perceptual import PerceptualDistance, load_perceptual
from worldmodel.errors import SettingsError

# "M" halves; the form in which torchvision writes VGG16 down, with narrow layers.
PLAN = (4, 4, "M", 6, 6, "M", 8, 8, 8, "M", 8, 8, 8, "M", 8, 8, 8)


def narrow_vgg() -> nn.Sequential:
    """VGG16's features, built as torchvision builds them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 3
    for step in PLAN:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(width, step, 3, padding=1), nn.ReLU()]
            width = step
    return nn.Sequential(*layers)


def weights_of(net: nn.Sequential) -> dict[str, Tensor]:
    return {f"features.{name}": value for name, value in net.state_dict().items()}


@torch.no_grad()
def test_the_distance_is_that_of_unit_features_of_a_network_built_otherwise():
    net = narrow_vgg()
    one, other = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = 0.0
    for stop in (4, 9, 16, 23, 30):  # behind relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3
        seen = []
        for frames in (one, other):
            unit = ((frames / 2 + 0.5).movedim(1, -1) - mean) / spread
            features = net[:stop](unit.movedim(-1, 1))
            seen.append(features / features.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6))
        expected += float((seen[0] - seen[1]).square().sum(1).mean())
    assert float(PerceptualDistance(weights_of(net))(one, other)) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01


def test_only_the_rebuilt_picture_learns_and_nothing_of_it_is_saved():
    distance = PerceptualDistance(weights_of(narrow_vgg()))
    rebuilt, truth = (torch.rand(1, 3, 16, 16).requires_grad_() for _ in range(2))
    distance(rebuilt, truth).backward()
    assert rebuilt.grad is not None
    assert rebuilt.grad.any()
    assert truth.grad is None
    assert not list(distance.parameters())
    assert not distance.state_dict()


def saved(folder: Path, weights: dict[str, Tensor]) -> tuple[str, str]:
    path = folder / "vgg16.safetensors"
    save_file(weights, path)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_come_from_a_file_with_the_right_hash(tmp_path: Path):
    net = narrow_vgg()
    one, other = torch.rand(2, 1, 3, 16, 16)
    loaded = load_perceptual(*saved(tmp_path, weights_of(net)))
    assert torch.equal(loaded(one, other), PerceptualDistance(weights_of(net))(one, other))


def test_a_file_with_another_hash_is_refused(tmp_path: Path):
    path, digest = saved(tmp_path, weights_of(narrow_vgg()))
    with pytest.raises(SettingsError, match=f"has the SHA-256 {digest}, and picture_loss.perceptual_sha256 is 00"):
        load_perceptual(path, "00" * 32)


def test_what_is_not_named_not_there_or_not_vgg_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="needs the weights of VGG16: name a .safetensors file"):
        load_perceptual(None, None)
    with pytest.raises(SettingsError, match="perceptual_file=.*nowhere.* is not VGG16"):
        load_perceptual(str(tmp_path / "nowhere"), "00")
    weights = weights_of(narrow_vgg())
    del weights["features.28.bias"]
    with pytest.raises(SettingsError, match="is not VGG16 in torchvision's names .*features.28.bias"):
        load_perceptual(*saved(tmp_path, weights))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(SettingsError, match="is not VGG16 in torchvision's names"):
        load_perceptual(str(tmp_path / "text"), hashlib.sha256(b"no weights").hexdigest())
