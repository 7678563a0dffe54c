"""The suite of every head that tells two kinds of clips apart."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldmodel.heads.readout import HeadResult

DIM, NUM_FRAMES, NUM_TOKENS = 16, 6, 3


class TwoViewsSuite:
    """Subclass it with the head as `head`."""

    head: Any

    def made(self) -> Any:
        torch.manual_seed(0)
        return self.head(DIM)

    def test_chance_is_one_half(self):
        assert self.head.chance == 0.5

    def test_it_learns_states_that_differ_in_one_direction(self):
        head = self.made()
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        direction = torch.randn(DIM)
        for step in range(40):
            result = head(*kinds(16, direction, seed=step))
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
        fresh = head(*kinds(64, direction, seed=10**6))
        assert fresh.scores.mean() > 0.95
        assert fresh.loss < 0.3

    def test_states_that_are_alike_give_chance_and_the_loss_of_a_coin(self):
        head, states = self.made(), kinds(32, torch.zeros(DIM), seed=3)[0]
        result = head(states, states)
        assert result.scores.mean() == self.head.chance
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        assert result.loss.item() > head(states, states).loss.item() == pytest.approx(math.log(2))

    def test_exchanged_kinds_are_told_wrong_where_the_others_were_told_right(self):
        head, (one, other) = self.made(), kinds(8, torch.randn(DIM), seed=1)
        right, wrong = head(one, other).scores, head(other, one).scores
        assert torch.equal(torch.cat((right[8:], right[:8])), 1 - wrong)
        assert set(right.tolist()) <= {0.0, 1.0}

    def test_both_kinds_weigh_the_same_however_many_there_are(self):
        head, (one, other) = self.made(), kinds(6, torch.randn(DIM), seed=2)
        result = head(one, other[:1])
        assert result.scores.shape == (7,)
        torch.testing.assert_close(result.loss, head(one, other[:1].expand_as(one)).loss)

    def test_the_first_two_frames_are_not_read(self):
        head, (one, other) = self.made(), kinds(4, torch.randn(DIM), seed=4)
        changed = one.clone()
        changed[:, :2] = 100.0
        assert torch.equal(head(one, other).loss, head(changed, other).loss)
        changed[:, 2] = 100.0
        assert not torch.equal(head(one, other).loss, head(changed, other).loss)

    def test_a_gradient_reaches_both_views_and_every_weight(self):
        head, (one, other) = self.made(), kinds(4, torch.randn(DIM), seed=5)
        one.requires_grad_()
        other.requires_grad_()
        result: HeadResult = head(one, other)
        result.loss.backward()
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad[:, 2:].abs().sum() > 0
        assert other.grad[:, 2:].abs().sum() > 0
        assert not [name for name, weight in head.named_parameters() if weight.grad is None or not weight.grad.any()]


def kinds(num_clips: int, direction: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """States of clips, and of others that are shifted in a direction."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2, num_clips, NUM_FRAMES, NUM_TOKENS, DIM, generator=generator)
    return states[0] + 0.5 * direction, states[1] - 0.5 * direction
