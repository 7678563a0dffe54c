from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.worldmodel.training.toy import HiddenToy, train_toy


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_state_by_name_is_that_of_plain_torch(tmp_path: Path, stage: int):
    seen: list[torch.Tensor] = []
    toy = HiddenToy(noise=0.0)
    if stage == 0:  # here the gradients can be seen before they are used
        toy.first_weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    _, result = train_toy(tmp_path, toy, steps=2, zero_stage=stage, clip_norm=0.0)
    state = load_file(result.checkpoint / "optimizer_0000.safetensors")
    names = [name for name, _ in toy.named_parameters()]
    assert set(state) == {f"{key}/{name}" for key in ("exp_avg", "exp_avg_sq") for name in names}
    assert all(state[f"exp_avg/{name}"].shape == one.shape for name, one in toy.named_parameters())
    if stage == 0:
        first, second = seen
        expected = 0.9 * 0.1 * first + 0.1 * second
        assert torch.allclose(state["exp_avg/net.0.weight"], expected, rtol=1e-4, atol=1e-8)
    _, plain = train_toy(tmp_path / "plain", HiddenToy(noise=0.0), steps=2, zero_stage=0, clip_norm=0.0)
    expected_state = load_file(plain.checkpoint / "optimizer_0000.safetensors")
    for name, value in state.items():
        assert torch.allclose(value, expected_state[name], rtol=1e-4, atol=1e-9), name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_momentum_of_muon_is_that_of_stage_0(tmp_path: Path, stage: int):
    states = []
    for tried in (0, stage):
        _, result = train_toy(tmp_path / str(tried), HiddenToy(noise=0.0), steps=2, zero_stage=tried, optimizer="muon")
        states.append(load_file(result.checkpoint / "optimizer_0000.safetensors"))
    assert states[0].keys() == states[1].keys()
    assert "momentum_buffer/net.0.weight" in states[0]
    assert "exp_avg/net.0.weight" not in states[0]
    for name, value in states[0].items():
        assert torch.allclose(states[1][name], value, rtol=1e-4, atol=1e-9), name
