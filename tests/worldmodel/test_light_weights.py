import pytest
import torch
from torch import nn

from tests.worldmodel.tiny import random_codes, tiny_model, yes
from worldmodel.light_weights import LightLinear, lighten
from worldmodel.model import WorldModel
from worldmodel.settings import Weights

LIGHT: list[Weights] = ["bf16", "int8", "fp8"]
# How far a weight may be from what it was, in units of the largest of its row: half of the last bit, which fp8 (3 bits
# behind the point) and bfloat16 (7) count from the weight itself.
NEAR: dict[Weights, float] = {"bf16": 2**-8, "int8": 0.51 / 127, "fp8": 2**-4}


def layer(bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(24, 40, bias=bias)
    with torch.no_grad():
        linear.weight *= torch.logspace(-3, 3, 40)[:, None]  # rows of very different size
        linear.weight[7] = 0
    return linear


def kept_in(light: LightLinear) -> torch.Tensor:
    scale = torch.ones(len(light.weight)) if light.scale is None else light.scale.float()
    return light.weight.float() * scale[:, None]


def model_of(weights: Weights) -> WorldModel:
    model = tiny_model(sound=True)
    lighten(model.blocks, weights)
    return model


@pytest.mark.parametrize("weights", LIGHT)
def test_a_weight_is_near_what_it_was_in_units_of_its_row(weights: Weights):
    linear = layer(bias=False)
    largest = linear.weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-30)
    apart = (kept_in(LightLinear(linear, weights)) - linear.weight.detach()).abs() / largest
    assert apart.max() <= NEAR[weights]
    assert apart[7].max() == 0


@pytest.mark.parametrize("weights", LIGHT)
@pytest.mark.parametrize("bias", [False, True])
def test_a_light_layer_multiplies_by_what_it_keeps(weights: Weights, bias: bool):
    linear, x = layer(bias), torch.randn(2, 5, 24)
    light = LightLinear(linear, weights)
    expected = x.bfloat16().double() @ kept_in(light).double().T + (linear.bias.detach().double() if bias else 0)
    found = light(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("weights", "num_bytes"), [("bf16", 2), ("int8", 1), ("fp8", 1)])
def test_a_matrix_takes_as_many_bytes_as_its_kind(weights: Weights, num_bytes: int):
    model = model_of(weights)
    light = [module for module in model.modules() if isinstance(module, LightLinear)]
    assert len(light) == 5 * 4  # query, key and value, out, and two of the feed-forward, in four blocks
    assert {each.weight.element_size() for each in light} == {num_bytes}
    assert not any(parameter.requires_grad for each in light for parameter in each.parameters())
    assert all(
        type(module) is nn.Linear for module in model.decoder.readouts.modules() if isinstance(module, nn.Linear)
    )


def test_weights_as_they_were_trained_are_left_alone():
    model = model_of("fp32")
    assert not any(isinstance(module, LightLinear) for module in model.modules())


@pytest.mark.parametrize("weights", LIGHT)
@torch.no_grad()
def test_a_light_model_has_nearly_the_states_and_logits_of_the_whole_one(weights: Weights):
    whole, light, codes = model_of("fp32"), model_of(weights), random_codes(2, 6, 26)
    states = [model.states(codes, yes(2)) for model in (whole, light)]
    apart = (states[0] - states[1]).norm() / states[0].norm()
    assert 0 < apart < 0.1
    logits = [model.decoder(states[0][:, 0], codes[:, 0], codes[:, 1]) for model in (whole, light)]
    for one, other in zip(*logits, strict=True):
        assert (one.logits - other.logits).norm() / one.logits.norm() < 0.1


@pytest.mark.parametrize("weights", LIGHT)
@torch.no_grad()
def test_a_light_model_steps_as_it_reads(weights: Weights):
    model, codes = model_of(weights), random_codes(1, 7, 26)
    cache = model.start()
    for frame in codes.unbind(1):
        state = model.step(frame, yes(1), cache)
    assert {tensor.dtype for layer in cache.trunk.layers for tensor in layer} == {torch.bfloat16}
    torch.testing.assert_close(state, model.states(codes, yes(1))[:, -1], atol=0.05, rtol=0.05)
