import pytest
import torch

from tests.worldmodel.test_attention import turns_at
from worldmodel.attention import grid_positions
from worldmodel.blocks import Block, FeedForward
from worldmodel.sight import Sight


@torch.no_grad()
def test_past_keys_and_values_do_what_the_whole_sequence_does():
    block = Block(32, 2)
    x = torch.randn(2, 8, 32)
    turns = turns_at(torch.arange(4).repeat_interleave(2), grid_positions(1, 2).repeat(4, 1))
    whole, (all_keys, all_values) = block.extend(x, turns, None, Sight.of_frames(4, 2, 4))
    first, past = block.extend(x[:, :6], turns[:6], None, Sight.of_frames(3, 2, 4))
    last, (keys, values) = block.extend(x[:, 6:], turns[6:], past, None)
    torch.testing.assert_close(torch.cat((first, last), 1), whole)
    torch.testing.assert_close(keys, all_keys)
    torch.testing.assert_close(values, all_values)


@pytest.mark.parametrize("dim", [8, 32, 48, 192])
def test_the_feed_forward_is_a_gated_product(dim: int):
    module, x = FeedForward(dim), torch.randn(1, 3, dim)
    gate, value = (module.gate_value.weight @ x[0].T).chunk(2)
    expected = module.out.weight @ (gate / (1 + torch.exp(-gate)) * value)
    torch.testing.assert_close(module(x)[0], expected.T, atol=1e-5, rtol=1e-4)
    assert value.shape[0] % 32 == 0
    assert value.shape[0] >= dim * 8 / 3
