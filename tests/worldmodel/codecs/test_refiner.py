import pytest
import torch

from worldmodel.codecs.refiner import Refiner


@pytest.mark.parametrize("block", [4, 8, 16])
def test_an_untrained_refiner_adds_nothing_to_frames_of_any_block_size(block: int):
    added = Refiner(5, 8, block)(torch.randn(2, 5, 3, 4))
    assert added.shape == (2, 3, 3 * block, 4 * block)
    assert not added.any()


def test_a_refiner_learns_what_neighbouring_latents_tell():
    """The sum of a latent and its left neighbour cannot be told from the latent alone."""
    torch.manual_seed(0)
    refiner = Refiner(2, 8, 4)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        latent = torch.randn(16, 2, 4, 4)
        told = (latent + latent.roll(1, 3))[:, :1].repeat_interleave(4, 2).repeat_interleave(4, 3)
        error = (refiner(latent) - told)[..., 4:].square().mean()
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.25 * errors[0]
