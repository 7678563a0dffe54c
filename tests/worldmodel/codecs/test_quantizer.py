import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from tests.worldmodel.tiny import (
    GRIDS,
    LATENT_DIM,
    QUANTIZER,
    VOCABULARY,
    codebooks_of,
    random_codes,
    smoothing_of,
    tiny_quantizer,
)
from worldmodel.codecs.quantizer import MultiScaleQuantizer, still_change_share

SIDE = GRIDS[-1][0]
KINDS = ("vq", "fsq", "bsq")
of_every_kind = pytest.mark.parametrize("kind", KINDS)


def random_latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, LATENT_DIM, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def with_margin(margin: float, kind: str = "vq") -> MultiScaleQuantizer:
    return tiny_quantizer(dataclasses.replace(QUANTIZER, sticky_margin=margin, kind=kind))


def of_kind(kind: str) -> MultiScaleQuantizer:
    return tiny_quantizer(dataclasses.replace(QUANTIZER, kind=kind))


def slowly_moving(num_frames: int) -> Tensor:
    """Latents of two clips that stand still but for a little noise."""
    return random_latents(2, 1).repeat(1, num_frames, 1, 1, 1) + 0.3 * random_latents(2, num_frames, seed=1)


def num_changes(codes: Tensor) -> int:
    return int((codes[:, 1:] != codes[:, :-1]).sum())


def naive_upsampled(quantizer: MultiScaleQuantizer, codes: Tensor, scale: int) -> Tensor:
    """The latent of one frame's codes of one scale: entries on their grid, bicubic, half of a 3x3 convolution."""
    rows, columns = GRIDS[scale]
    grid = torch.zeros(LATENT_DIM, rows, columns)
    for place, code in enumerate(codes):
        grid[:, place // columns, place % columns] = codebooks_of(quantizer)[scale].vectors[code]
    large = F.interpolate(grid[None], (SIDE, SIDE), mode="bicubic") if rows != SIDE else grid[None]
    smooth = smoothing_of(quantizer)[scale]
    return (large + 0.5 * F.conv2d(large, smooth.weight, smooth.bias, padding=1))[0]


def naive_codes(quantizer: MultiScaleQuantizer, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of one frame and their latent: for every scale and place the entry nearest to what is left, by trial."""
    left, chosen = latent.clone(), []
    for scale, (rows, columns) in enumerate(GRIDS):
        height, width = SIDE // rows, SIDE // columns
        codes = []
        for row in range(rows):
            for column in range(columns):
                square = left[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
                mean = square.mean((1, 2))
                distances = [float((mean - entry).square().sum()) for entry in codebooks_of(quantizer)[scale].vectors]
                codes.append(distances.index(min(distances)))
        chosen += codes
        left = left - naive_upsampled(quantizer, torch.tensor(codes), scale)
    return torch.tensor(chosen), latent - left


@of_every_kind
@torch.no_grad()
def test_codes_and_latents_equal_a_naive_loop(kind: str):
    quantizer, latents = with_margin(0.0, kind), random_latents(1, 6)
    codes = quantizer.encode(latents)
    for frame, latent in enumerate(latents[0]):
        expected, total = naive_codes(quantizer, latent)
        assert torch.equal(codes[0, frame], expected)
        torch.testing.assert_close(quantizer.embed(expected[None])[0], total, atol=1e-5, rtol=1e-5)


@of_every_kind
@torch.no_grad()
def test_encoding_and_embedding_equal_the_forward_pass(kind: str):
    quantizer, latents = with_margin(0.0, kind), random_latents(2, 3)
    codes = quantizer.encode(latents).flatten(0, 1)
    quantized = quantizer(latents.flatten(0, 1))
    assert torch.equal(codes, quantized.codes)
    torch.testing.assert_close(quantizer.embed(codes), quantized.latent, atol=1e-5, rtol=1e-5)


@of_every_kind
@torch.no_grad()
def test_clips_in_the_forward_pass_have_the_codes_of_encoding(kind: str):
    quantizer, latents = with_margin(0.3, kind), slowly_moving(5)
    codes = quantizer.encode(latents)
    quantized = quantizer(latents.flatten(0, 1), 5)
    assert torch.equal(quantized.codes.unflatten(0, (2, 5)), codes)
    torch.testing.assert_close(quantized.latent, quantizer.embed(quantized.codes), atol=1e-5, rtol=1e-5)
    assert not torch.equal(quantizer(latents.flatten(0, 1)).codes, quantized.codes)


@of_every_kind
@torch.no_grad()
def test_every_scale_brings_the_latent_closer(kind: str):
    quantizer = with_margin(0.0, kind).train()
    latents = random_latents(16)
    for _ in range(50):
        quantizer(latents)
    codes = quantizer.eval()(latents).codes
    errors = [float(F.mse_loss(quantizer.embed(codes, num), latents)) for num in range(len(GRIDS) + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(float(latents.square().mean()))


@of_every_kind
@torch.no_grad()
def test_the_inputs_of_all_scales_equal_the_inputs_of_each(kind: str):
    quantizer, codes = of_kind(kind), random_codes(3, 21)
    partials = quantizer.partials(codes)
    assert [partial.shape for partial in partials] == [(3, LATENT_DIM, *grid) for grid in GRIDS]
    assert not partials[0].any()
    for scale, partial in enumerate(partials):
        coarser = quantizer.seen_by(quantizer.embed(codes, scale), scale)
        torch.testing.assert_close(coarser, partial, atol=1e-6, rtol=1e-6)
        other = codes.clone()
        other[:, quantizer.pyramid.slices[scale].start :] = 0
        assert torch.equal(quantizer.partials(other)[scale], partial)


@of_every_kind
@torch.no_grad()
def test_lookup_gives_the_entries_of_a_scale(kind: str):
    quantizer, codes = of_kind(kind), random_codes(3, 4)
    vectors = quantizer.lookup(codes, 1)
    assert all(
        torch.equal(vectors[i, p], codebooks_of(quantizer)[1].vectors[codes[i, p]]) for i in range(3) for p in range(4)
    )


def test_without_a_margin_every_frame_is_encoded_by_itself():
    quantizer, latents = with_margin(0.0), slowly_moving(5)
    alone = torch.cat([quantizer.encode(frame[:, None]) for frame in latents.unbind(1)], 1)
    assert torch.equal(quantizer.encode(latents), alone)


def test_codes_that_are_not_sticky_are_those_without_a_margin():
    latents = slowly_moving(5)
    plain = with_margin(0.5).encode(latents, sticky=False)
    assert torch.equal(plain, with_margin(0.0).encode(latents))
    assert not torch.equal(plain, with_margin(0.5).encode(latents))


@of_every_kind
def test_a_larger_margin_means_fewer_changes(kind: str):
    latents = slowly_moving(20)
    changes = [num_changes(with_margin(margin, kind).encode(latents)) for margin in (0.0, 0.1, 0.3, 1.0, 100.0)]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 2 * changes[2] > 0
    assert changes[-1] == 0


@of_every_kind
def test_a_sticky_code_stays_while_it_costs_at_most_the_margin_and_not_longer(kind: str):
    quantizer, num_frames = with_margin(0.3, kind), 100
    brightness = torch.randn(2, num_frames, LATENT_DIM, 1, 1)
    latents = random_latents(2, num_frames) + brightness
    codes = quantizer.encode(latents)
    allowed = 0.3 * latents.square().sum(2).mean((2, 3))
    # the coarsest code of a frame depends on no other scale, so its price can be worked out by itself
    means = latents.mean((3, 4))
    distances = (means[:, :, None] - codebooks_of(quantizer)[0].vectors).square().sum(-1)
    prices = []
    for clip in range(2):
        for frame in range(1, num_frames):
            old, nearest = codes[clip, frame - 1, 0], distances[clip, frame].argmin()
            price = (distances[clip, frame, old] - distances[clip, frame, nearest]) / allowed[clip, frame]
            assert codes[clip, frame, 0] == (old if price <= 1 else nearest)
            prices.append(float(price))
    # the margin was put to the test closely from both sides
    assert max(price for price in prices if price <= 1) > 0.9
    assert min(price for price in prices if price > 1) < 1.1


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_a_frame_that_stands_still_keeps_all_its_codes(margin: float):
    codes = with_margin(margin).encode(random_latents(2, 1).expand(2, 6, LATENT_DIM, SIDE, SIDE))
    assert num_changes(codes) == 0


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_two_halves_are_encoded_as_the_whole(cut: int):
    quantizer, latents = with_margin(0.3), slowly_moving(7)
    whole = quantizer.encode(latents)
    first = quantizer.encode(latents[:, :cut])
    second = quantizer.encode(latents[:, cut:], previous=first[:, -1])
    assert torch.equal(torch.cat((first, second), 1), whole)
    assert not torch.equal(quantizer.encode(latents[:, cut:]), whole[:, cut:])


@pytest.mark.parametrize("lengths", [[5, 5, 5], [2, 5, 3], [1, 4, 4], [0, 1, 0], [0, 0, 0]])
@of_every_kind
def test_beginnings_of_clips_have_the_codes_of_whole_clips_and_nothing_comes_after(lengths: list[int], kind: str):
    quantizer = of_kind(kind)
    latent = torch.randn(3, 5, LATENT_DIM, 4, 4, generator=torch.Generator().manual_seed(1))
    latent = 0.7 * latent.cumsum(1)  # slow enough for codes to stick
    whole, beginnings = quantizer.encode(latent), quantizer.encode_beginnings(latent, lengths)
    assert ((whole[:, 1:] == whole[:, :-1]) & (whole[:, 1:] > 0)).any()
    assert beginnings.dtype == whole.dtype
    for clip, length in enumerate(lengths):
        assert torch.equal(beginnings[clip, :length], whole[clip, :length])
        assert not beginnings[clip, length:].any()


@of_every_kind
def test_the_gradient_goes_straight_through_to_the_encoder(kind: str):
    quantizer = of_kind(kind)
    latents = random_latents(3).requires_grad_()
    weights = torch.randn(3, LATENT_DIM, SIDE, SIDE)
    quantized = quantizer(latents)
    (quantized.latent * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    assert all(smooth.weight.grad is not None and smooth.weight.grad.any() for smooth in smoothing_of(quantizer))


def test_the_loss_pulls_latents_to_their_codes_and_trains_the_smoothing():
    quantizer = tiny_quantizer()
    latents = random_latents(3).requires_grad_()
    quantized = quantizer(latents)
    expected = torch.stack([F.mse_loss(quantizer.embed(quantized.codes, num), latents) for num in (1, 2, 3)]).mean()
    torch.testing.assert_close(quantized.loss, 1.25 * expected, atol=1e-5, rtol=1e-5)
    quantized.loss.backward()
    step = latents - 0.1 * latents.grad  # type: ignore[operator]
    total = quantizer.embed(quantized.codes)
    assert F.mse_loss(step, total) < F.mse_loss(latents, total)
    assert all(smooth.weight.grad is not None and smooth.weight.grad.any() for smooth in smoothing_of(quantizer))


@of_every_kind
def test_quantising_stays_in_full_precision_under_autocast(kind: str):
    quantizer, latents = of_kind(kind), random_latents(50)
    with torch.autocast("cpu", torch.bfloat16):
        halved = quantizer(latents)
    whole = quantizer(latents)
    assert torch.equal(halved.codes, whole.codes)
    torch.testing.assert_close(halved.latent, whole.latent)


@of_every_kind
def test_evaluation_moves_no_codebook_and_training_does(kind: str):
    quantizer, latents = of_kind(kind), random_latents(8)
    before = [codebook.vectors.clone() for codebook in codebooks_of(quantizer)]
    quantizer(latents)
    quantizer.encode(latents[None])
    assert all(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))
    quantizer.train()
    quantizer.encode(latents[None])
    assert all(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))
    quantizer(latents)
    assert not any(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))


def test_after_training_no_entry_of_the_finest_scale_is_dead():
    quantizer = MultiScaleQuantizer(QUANTIZER).train()
    for seed in range(60):
        codes = quantizer(random_latents(16, seed=seed)).codes
    used = torch.bincount(codes[:, quantizer.pyramid.slices[-1]].flatten(), minlength=VOCABULARY)
    assert (used > 0).all()


def clustered(num_items: int, seed: int) -> Tensor:
    """Latents of which every place is one of five centres, plus a little noise."""
    centres = torch.randn(5, LATENT_DIM, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(5, (num_items, SIDE, SIDE), generator=generator)
    noise = 0.05 * torch.randn(num_items, SIDE, SIDE, LATENT_DIM, generator=generator)
    return (centres[places] + noise).movedim(-1, 1)


@of_every_kind
def test_training_on_clusters_lowers_the_error_of_latents_never_seen(kind: str):
    quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, kind=kind)).train()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-3)
    held_out = clustered(32, seed=10**6)

    def error() -> float:
        with torch.no_grad():
            codes = quantizer.encode(held_out[None], sticky=False)[0]
            return float(F.mse_loss(quantizer.embed(codes), held_out) / held_out.var())

    before = error()
    for step in range(200):
        quantized = quantizer(clustered(8, seed=step))
        optimizer.zero_grad()
        quantized.loss.backward()
        optimizer.step()
    assert before > 0.5
    assert error() < 0.2


def _train_rank(rank: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(100 + rank)  # another seed on every rank: also the restarts must agree
    quantizer = of_kind(kind).train()
    for step in range(3):
        quantizer(random_latents(4, seed=10 * step + rank))
    torch.save(quantizer.codebooks.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["vq", "fsq"])
def test_two_ranks_with_different_batches_end_with_the_same_codebooks(kind: str, tmp_path: Path):
    mp.spawn(_train_rank, args=(str(tmp_path), kind), nprocs=2)  # type: ignore[attr-defined]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = of_kind(kind).train()
    for step in range(3):
        alone(random_latents(4, seed=10 * step))
    assert not torch.equal(first["0.vectors"], codebooks_of(alone)[0].vectors)  # each rank has learned from both


def test_the_share_of_changes_counts_only_what_stands_still():
    codes = torch.tensor([[[1, 1, 1], [1, 2, 2], [3, 2, 1]]])
    still = torch.tensor([[[True, True, False], [True, False, False]]])
    assert float(still_change_share(codes, still)) == pytest.approx(2 / 3)
    assert float(still_change_share(codes, torch.zeros_like(still))) == 0


def test_scales_added_one_by_one_give_the_inputs_of_all_scales():
    quantizer = tiny_quantizer()
    codes = random_codes(3, quantizer.pyramid.num_codes)
    latent = quantizer.nothing(3)
    for index, (part, partial) in enumerate(zip(quantizer.pyramid.slices, quantizer.partials(codes), strict=True)):
        assert torch.equal(quantizer.seen_by(latent, index), partial)
        latent = quantizer.add_scale(latent, codes[:, part], index)
    assert torch.equal(latent, quantizer.embed(codes))


@torch.no_grad()
def test_with_a_price_of_bits_codes_are_cheaper_and_less_exact_and_training_chooses_as_encoding_does():
    torch.manual_seed(0)
    latents = torch.randn(64, LATENT_DIM, 4, 4)
    bits, errors = [], []
    for price in (0.0, 0.2):
        quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, bit_price=price, sticky_margin=0.0))
        quantizer.load_state_dict(tiny_quantizer().state_dict())
        for codebook in codebooks_of(quantizer):
            codebook.counts.copy_(2.0 ** -torch.arange(VOCABULARY))
        quantized = quantizer.eval()(latents)
        assert torch.equal(quantizer.encode(latents[:, None])[:, 0], quantized.codes)
        bits.append(float(quantized.codes.float().mean()))  # code n costs n + 1 bits
        errors.append(float((quantized.latent - latents).square().mean()))
    assert bits[1] < bits[0] - 0.5
    assert errors[1] > errors[0]


@torch.no_grad()
def test_codebooks_that_learn_before_the_price_is_asked_have_more_entries_in_use():
    perplexities = []
    for early in (1.0, 0.0):
        torch.manual_seed(0)
        settings = dataclasses.replace(QUANTIZER, bit_price=0.1, sticky_margin=0.0, vocabulary=64)
        quantizer = MultiScaleQuantizer(settings).train()
        clusters = torch.randn(40, LATENT_DIM)
        for step in range(120):
            latents = clusters[torch.randint(40, (32, SIDE, SIDE))].movedim(-1, 1)
            quantizer(latents + 0.1 * torch.randn_like(latents), 1, early if step < 60 else 1.0)
        perplexities.append(float(codebooks_of(quantizer)[-1].perplexity()))
    assert perplexities[1] > 1.5 * perplexities[0]
