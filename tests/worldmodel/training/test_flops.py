import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.worldmodel.test_objective import ALL, ON, batch_of, objective_of
from worldmodel.attention import Attention
from worldmodel.sight import Sight
from worldmodel.training.flops import CPU_SIDE, counted, peak_flops_per_second, seconds_of_product


def test_layers_of_a_model_are_counted_as_torch_counts_their_products():
    objective, batch = objective_of(ALL, ON).eval(), batch_of(2)
    with counted(objective) as flops, FlopCounterMode(display=False) as reference, torch.no_grad():
        objective(batch)
    # Torch's counter does not know the attention kernels of a CPU, so that is counted by hand there.
    attention = 0
    for module in objective.modules():
        if isinstance(module, Attention):
            module.products_flops = lambda *inputs: 0  # type: ignore[method-assign]
    with counted(objective) as without, torch.no_grad():
        objective(batch)
    attention = flops.forward - without.forward
    assert without.forward == pytest.approx(reference.get_total_flops(), rel=0.01)
    assert attention > 0


def test_attention_counts_the_pairs_that_see_each_other():
    sight = Sight.of_frames(7, 3, 4)
    attention = Attention(32, 2)
    x, turns = torch.randn(5, 21, 32), torch.ones(21, 8, dtype=torch.complex64)
    key, value = attention.keys_values(x, turns)
    with counted(attention) as flops:
        attention(x, turns, key, value, sight)
    linear = 2 * 5 * 21 * (attention.query.weight.numel() + attention.out.weight.numel())
    assert flops.forward == linear + 2 * 2 * 5 * 32 * int(sight.mask().sum())
    assert flops.training == 3 * flops.forward


def test_pairs_are_those_of_the_mask():
    for sight in (Sight.of_frames(7, 3, 4, 2), Sight.of_scales([1, 4, 16], 5)):
        assert sight.num_pairs == int(sight.mask().sum())


def test_convolutions_of_both_directions_are_counted_and_frozen_ones_have_no_backward_pass():
    net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2, groups=1), nn.ConvTranspose2d(8, 5, 3, groups=1))
    net[0].requires_grad_(False)
    x = torch.randn(2, 3, 20, 20)
    with counted(net) as flops, FlopCounterMode(display=False) as reference:
        net(x)
    assert flops.forward == reference.get_total_flops()
    first = 2 * 2 * 8 * 9 * 9 * 3 * 16
    assert flops.training == first + 3 * (flops.forward - first)


def test_nothing_is_counted_afterwards():
    net = nn.Linear(3, 4)
    with counted(net) as flops:
        net(torch.zeros(5, 3))
    net(torch.zeros(5, 3))
    assert flops.forward == 2 * 5 * 3 * 4


def test_the_peak_is_that_of_a_product_and_draws_nothing():
    state = torch.get_rng_state()
    peak = peak_flops_per_second(torch.device("cpu"), "fp32")
    assert torch.equal(torch.get_rng_state(), state)
    begun = time.perf_counter()
    seconds = seconds_of_product(*torch.ones(2, CPU_SIDE, CPU_SIDE))
    assert 0 < seconds <= time.perf_counter() - begun
    assert peak > 1e6
