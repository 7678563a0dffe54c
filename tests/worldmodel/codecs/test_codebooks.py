import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.worldmodel.tiny import QUANTIZER
from worldmodel.codecs.codebooks import BEST_STEPS, ROWS, Codebook, Lattice, LearnedCodebook, levels_of, make_codebook
from worldmodel.settings import QuantizerSettings

KINDS = ("vq", "fsq", "bsq")
of_every_kind = pytest.mark.parametrize("kind", KINDS)


def codebook_of(kind: str, vocabulary: int = 16, dim: int = 4, seed: int = 0) -> Codebook:
    """A codebook that has seen latents whose spread is 2, 1, 1/2, ... along the axes of a space turned at random."""
    torch.manual_seed(seed)
    codebook = make_codebook(dataclasses.replace(QUANTIZER, kind=kind, vocabulary=vocabulary, dim=dim, decay=0.8))
    for _ in range(40):
        latents = spread_out(200, dim)
        codebook.update(latents, codebook.nearest(latents))
    return codebook


def turned(dim: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(5)))[0]


def spread_out(num: int, dim: int) -> Tensor:
    return (torch.randn(num, dim) * 2.0 ** (1 - torch.arange(dim))) @ turned(dim).T + 3


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
@torch.no_grad()
def test_the_nearest_entry_is_that_of_a_direct_computation(seed: int, kind: str):
    codebook = codebook_of(kind, seed=seed)
    latents = spread_out(50, 4)
    distances = (latents[:, None] - codebook.vectors).square().sum(-1)
    chosen = distances.gather(1, codebook.nearest(latents)[:, None])[:, 0]
    torch.testing.assert_close(chosen, distances.amin(1), atol=1e-4, rtol=1e-4)


@of_every_kind
@torch.no_grad()
def test_with_a_price_of_bits_distance_and_bits_together_are_least(kind: str):
    codebook, latents = codebook_of(kind), spread_out(100, 4)
    shares = codebook.counts.clamp(min=codebook.restart_below) / codebook.counts.clamp(min=codebook.restart_below).sum()
    bits, found = [], codebook.nearest(latents, torch.full((100,), 0.5))
    for latent, code in zip(latents, found.tolist(), strict=True):
        costs = [
            float((latent - entry).square().sum()) - 0.5 * math.log2(float(share))
            for entry, share in zip(codebook.vectors, shares, strict=True)
        ]
        assert costs[code] == pytest.approx(min(costs), abs=1e-4)
        bits.append(-math.log2(float(shares[code])))
    plain = codebook.nearest(latents)
    assert sum(bits) < float(-shares[plain].log2().sum())


@of_every_kind
def test_many_latents_have_the_codes_of_few(kind: str):
    codebook, latents = codebook_of(kind), spread_out(2 * ROWS + 7, 4)
    few = torch.cat([codebook.nearest(part) for part in latents.split(100)])
    assert torch.equal(codebook.nearest(latents), few)


@of_every_kind
def test_a_trained_codebook_of_every_kind_loses_less_than_its_mean_and_uses_its_entries(kind: str):
    codebook = codebook_of(kind)
    latents = spread_out(4000, 4)
    codes = codebook.nearest(latents)
    error = (latents - codebook.vectors[codes]).square().sum(1).mean()
    assert error < 0.5 * (latents - latents.mean(0)).square().sum(1).mean()
    assert len(codes.unique()) == 16
    assert codebook.perplexity() > 6
    assert not codebook.dead().any()


def test_a_lattice_of_one_axis_loses_what_the_best_even_steps_lose_on_a_normal_distribution():
    torch.manual_seed(0)
    # The distortions of table II of Max 1960, for a spread of one.
    for num_levels, distortion in ((4, 0.1188), (8, 0.03744)):
        codebook = Lattice(QuantizerSettings(vocabulary=num_levels, dim=1, decay=0.9), (num_levels,))
        for _ in range(60):
            latents = 5 * torch.randn(4000, 1) - 2
            codebook.update(latents, codebook.nearest(latents))
        latents = 5 * torch.randn(100_000, 1) - 2
        error = (latents - codebook.vectors[codebook.nearest(latents)]).square().mean()
        assert float(error) / 25 == pytest.approx(distortion, rel=0.05)


def test_a_lattice_finds_the_axes_that_vary_most_and_measures_their_spread():
    codebook = codebook_of("fsq")  # two axes of four levels
    assert isinstance(codebook, Lattice)
    along = (codebook.axes.T @ turned(4)).abs()
    torch.testing.assert_close(along, torch.eye(2, 4), atol=0.1, rtol=0.0)
    grid = (codebook.vectors - codebook.vectors.mean(0)) @ codebook.axes
    steps = [float(grid[:, axis].unique().diff().max()) for axis in range(2)]
    assert steps == pytest.approx([2 * BEST_STEPS[4], BEST_STEPS[4]], rel=0.1)
    torch.testing.assert_close(codebook.vectors.mean(0), torch.full((4,), 3.0), atol=0.3, rtol=0.0)


def test_the_code_of_signs_is_the_row_of_signs():
    codebook = codebook_of("bsq")
    assert isinstance(codebook, Lattice)
    latents = spread_out(300, 4)
    signs = ((latents - codebook.vectors.mean(0)) @ codebook.axes > 0).long()
    assert torch.equal(codebook.nearest(latents), signs @ torch.tensor([8, 4, 2, 1]))


def test_a_lattice_whose_latents_are_all_the_same_stays_finite():
    codebook = Lattice(QuantizerSettings(vocabulary=8, dim=3), (2, 2, 2))
    latents = torch.full((10, 3), 0.7)
    for _ in range(3):
        codebook.update(latents, codebook.nearest(latents))
    torch.testing.assert_close(codebook.vectors, torch.full((8, 3), 0.7), atol=1e-3, rtol=0.0)


@pytest.mark.parametrize(
    ("vocabulary", "kind", "levels"),
    [
        (512, "bsq", (2,) * 9),
        (2, "bsq", (2,)),
        (512, "fsq", (8, 8, 8)),
        (256, "fsq", (8, 8, 4)),
        (240, "fsq", (8, 6, 5)),
        (1000, "fsq", (8, 5, 5, 5)),
        (3, "fsq", (3,)),
    ],
)
def test_levels_multiply_to_the_vocabulary(vocabulary: int, kind: str, levels: tuple[int, ...]):
    assert levels_of(vocabulary, kind) == levels
    assert math.prod(levels) == vocabulary


@pytest.mark.parametrize("vocabulary", [500, 1, 0])
def test_signs_refuse_what_is_no_power_of_two(vocabulary: int):
    with pytest.raises(ValueError, match=rf"quantizer\.vocabulary={vocabulary} with kind bsq: .*power of two"):
        levels_of(vocabulary, "bsq")


@pytest.mark.parametrize("vocabulary", [514, 11, 1, 0])
def test_levels_refuse_what_is_no_product_of_few(vocabulary: int):
    with pytest.raises(ValueError, match=rf"quantizer\.vocabulary={vocabulary} with kind fsq: .*512 = 8 x 8 x 8"):
        levels_of(vocabulary, "fsq")


def test_a_lattice_refuses_more_axes_than_a_latent_has():
    with pytest.raises(ValueError, match=r"512 codes of kind bsq need 9 axes, and latents have 4: .*dim to at least 9"):
        make_codebook(QuantizerSettings(kind="bsq", vocabulary=512, dim=4))


def learned(vocabulary: int, dim: int, decay: float, restart_below: float) -> LearnedCodebook:
    return LearnedCodebook(QuantizerSettings(vocabulary=vocabulary, dim=dim, decay=decay, restart_below=restart_below))


def test_an_entry_moves_to_the_mean_of_the_latents_it_stands_for():
    codebook = learned(vocabulary=2, dim=2, decay=0.5, restart_below=0.01)
    latents = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    codebook.update(latents, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(codebook.vectors, torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    codebook.update(latents + 1, torch.tensor([0, 0, 1]))
    # counts halve: the sums are 0.5 * (0.5 * old + new), the counts 0.5 * (0.5 * 2 + 2)
    torch.testing.assert_close(codebook.vectors, torch.tensor([[2 + 2 / 3, 2 / 3], [2 / 3, 5 + 2 / 3]]))


def test_entries_that_nobody_uses_are_restarted_from_the_batch():
    codebook = learned(vocabulary=8, dim=2, decay=0.9, restart_below=0.05)
    latents = torch.randn(100, 2)
    codebook.update(latents, torch.zeros(100, dtype=torch.long))
    torch.testing.assert_close(codebook.vectors[0], latents.mean(0))
    distances = (codebook.vectors[1:, None] - latents).abs().amax(2).amin(1)
    assert (distances < 1e-5).all()  # each of the others is one of the latents now
    kept = codebook.vectors.clone()
    codebook.update(latents, torch.zeros(100, dtype=torch.long))
    torch.testing.assert_close(codebook.vectors[1:], kept[1:])  # and is given time before it is restarted again


def test_an_entry_that_the_batch_uses_is_not_restarted():
    # One use adds 0.02 to a count, which is below the limit; and still the latents were told that they are this entry.
    codebook = learned(vocabulary=20, dim=2, decay=0.98, restart_below=0.05)
    latents = torch.randn(16, 2)
    for _ in range(3):
        codebook.update(latents, torch.arange(16))
        torch.testing.assert_close(codebook.vectors[:16], latents)
