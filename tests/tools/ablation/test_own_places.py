import pytest
import torch
from torch import Tensor

from tools.ablation.own_places import run_block
from worldmodel.attention import rotary_turns
from worldmodel.blocks import Block
from worldmodel.sight import Sight

NUM_ITEMS, NUM_TOKENS, NUM_PAST = 3, 4, 2


@pytest.mark.parametrize("num_turns", [1, NUM_ITEMS])
@pytest.mark.parametrize("sight", [None, Sight.of_scales([1] * NUM_TOKENS, NUM_PAST)])
def test_every_item_is_what_it_is_alone_with_its_own_turns(num_turns: int, sight: Sight | None):
    torch.manual_seed(0)
    block, x = Block(32, 2), torch.randn(NUM_ITEMS, NUM_TOKENS, 32)
    past = torch.randn(2, NUM_ITEMS, 2, NUM_PAST, 16)
    turns = torch.stack([turns_at(torch.rand(NUM_TOKENS, 2)) for _ in range(num_turns)])
    out, (key, value) = run_block(block, x, turns, (past[0], past[1]), sight)
    assert key.shape == value.shape == (NUM_ITEMS, 2, NUM_PAST + NUM_TOKENS, 16)
    for item in range(NUM_ITEMS):
        own = slice(item, item + 1)
        alone, kept = block.extend(x[own], turns[item % num_turns], (past[0, own], past[1, own]), sight)
        torch.testing.assert_close(out[own], alone)
        torch.testing.assert_close((key[own], value[own]), kept)


def test_items_that_differ_in_their_turns_alone_come_out_different():
    torch.manual_seed(0)
    block, x = Block(32, 2), torch.randn(1, NUM_TOKENS, 32).expand(2, -1, -1)
    turns = torch.stack([turns_at(torch.rand(NUM_TOKENS, 2)) for _ in range(2)])
    out, _ = run_block(block, x, turns, None, None)
    assert not torch.allclose(out[0], out[1], atol=1e-3)


def turns_at(places: Tensor) -> Tensor:
    return rotary_turns(torch.zeros(len(places)), places, 16)
