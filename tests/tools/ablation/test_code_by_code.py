"""One suite for all orders of places, fixed or not; `columns_of` for others."""

import pytest
import torch
from torch import Tensor

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import VOCABULARY, random_codes
from tools.ablation.candidate import Candidate, silent
from tools.ablation.candidates import CANDIDATES
from tools.ablation.code_by_code import CodeByCode, OrderedDecoder
from tools.ablation.measure import SAMPLINGS

NAMES = ("raster", "spiral", "quadtree", "random-order", "saliency", "confidence")
OWN_ORDERS = ("saliency", "confidence")


def decoder_of(candidate: Candidate) -> OrderedDecoder:
    assert isinstance(candidate, CodeByCode)
    return candidate.decoder


def frame_of(candidate: Candidate, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """State and codes before the last frame of every clip, and its codes."""
    return candidate.model.states(codes, silent(codes))[:, -2], codes[:, -2], codes[:, -1]


def columns_of(candidate: Candidate, codes: Tensor) -> Tensor:
    """In which order the codes of every clip's last frame are decoded, (clip or 1, code)."""
    decoder, (state, previous, target) = decoder_of(candidate), frame_of(candidate, codes)
    return decoder.columns(decoder.orders(decoder.ask(state, previous, target), previous))


def test_all_orders_are_here():
    found = [name for name in CANDIDATES if isinstance(lively(name), CodeByCode)]
    assert found == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_code_sees_those_before_it_in_the_order_and_no_others(name: str):
    candidate = lively(name)
    codes = random_codes(1, 3, candidate.model.num_codes)
    order = columns_of(candidate, codes)[0].tolist()
    now = logits_of(candidate, codes)[0]
    for number in (0, 2, 9, len(order) - 2):
        other = codes.clone()
        other[0, 2, order[number]] = (other[0, 2, order[number]] + 1) % VOCABULARY
        told = logits_of(candidate, other)[0]
        moved = {column for column in range(len(order)) if not torch.allclose(told[column], now[column], atol=1e-5)}
        assert moved.isdisjoint(order[: number + 1])
        assert order[number + 1] in moved


def logits_of(candidate: Candidate, codes: Tensor) -> Tensor:
    """Of the last frame of every clip, each code given the true ones before it."""
    return torch.cat([each.logits for each in decoder_of(candidate)(*frame_of(candidate, codes))], 1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_place_of_every_scale_comes_once_and_the_scales_coarse_to_fine(name: str):
    candidate = lively(name)
    decoder = decoder_of(candidate)
    order = columns_of(candidate, random_codes(4, 3, candidate.model.num_codes))
    assert len(order) == (4 if name in OWN_ORDERS else 1)
    for columns, part in zip(decoder.slices, order.split(decoder.sizes, 1), strict=True):
        assert (part.sort(1).values == torch.arange(columns.start, columns.stop)).all()


@pytest.mark.parametrize("name", ["random-order", *OWN_ORDERS])
@torch.no_grad()
def test_logits_one_by_one_are_those_of_all_at_once_and_orders_may_differ_in_a_batch(name: str):
    candidate = lively(name)
    decoder, codes = decoder_of(candidate), random_codes(4, 3, candidate.model.num_codes)
    steps: list[Tensor] = []
    handles = [
        readout.register_forward_hook(lambda module, given, found: steps.append(found[0]))
        for readout in decoder.readouts
    ]
    state, previous, _ = frame_of(candidate, codes)
    codes[:, -1] = decoder.imagine(state, previous, SAMPLINGS["drawn"], torch.Generator().manual_seed(0))
    for handle in handles:
        handle.remove()
    order = columns_of(candidate, codes)
    if name in OWN_ORDERS:
        finest = order[:, decoder.slices[-1]]
        assert all((finest[item] != finest[0]).any() for item in (1, 2, 3))
    expected = logits_of(candidate, codes).take_along_dim(order[..., None], 1)
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OWN_ORDERS)
@torch.no_grad()
def test_a_clip_is_decoded_in_a_batch_as_it_is_alone(name: str):
    candidate = lively(name)
    codes = random_codes(3, 3, candidate.model.num_codes)
    together = logits_of(candidate, codes)
    for clip in range(3):
        own = slice(clip, clip + 1)
        torch.testing.assert_close(logits_of(candidate, codes[own]), together[own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OWN_ORDERS)
@torch.no_grad()
def test_an_order_does_not_know_the_codes_that_it_is_of(name: str):
    """It knows the coarser ones, as all do."""
    candidate = lively(name)
    codes = random_codes(3, 3, candidate.model.num_codes)
    now = columns_of(candidate, codes)
    for columns in decoder_of(candidate).slices:
        other = codes.clone()
        other[:, -1, columns.start :] = random_codes(3, candidate.model.num_codes - columns.start, seed=1)
        assert torch.equal(columns_of(candidate, other)[:, : columns.stop], now[:, : columns.stop])
