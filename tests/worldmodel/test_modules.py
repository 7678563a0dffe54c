import torch
from torch import nn

from worldmodel.modules import Modules


def test_its_members_are_registered_and_come_in_order() -> None:
    members = [nn.Linear(2, 3), nn.Linear(3, 4)]
    modules = Modules[nn.Linear](members)
    assert list(modules) == members
    assert modules[1] is members[1]
    assert [name for name, _ in modules.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert torch.equal(modules.state_dict()["1.bias"], members[1].bias)
