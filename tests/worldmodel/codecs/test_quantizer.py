import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
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
from worldmodel.codecs.quantizer import Codebook, MultiScaleQuantizer, still_change_share

SIDE = GRIDS[-1][0]


def random_latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, LATENT_DIM, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def with_margin(margin: float) -> MultiScaleQuantizer:
    return tiny_quantizer(dataclasses.replace(QUANTIZER, sticky_margin=margin))


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


@torch.no_grad()
def test_codes_and_latents_equal_a_naive_loop():
    quantizer, latents = with_margin(0.0), random_latents(1, 6)
    codes = quantizer.encode(latents)
    for frame, latent in enumerate(latents[0]):
        expected, total = naive_codes(quantizer, latent)
        assert torch.equal(codes[0, frame], expected)
        torch.testing.assert_close(quantizer.embed(expected[None])[0], total, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
@torch.no_grad()
def test_distances_are_those_of_a_direct_computation(seed: int):
    codebook, latents = codebooks_of(tiny_quantizer(seed=seed))[0], torch.randn(7, LATENT_DIM)
    expected = (latents[:, None] - codebook.vectors).square().sum(-1)
    torch.testing.assert_close(codebook.distances(latents), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_encoding_and_embedding_equal_the_forward_pass():
    quantizer, latents = with_margin(0.0), random_latents(2, 3)
    codes = quantizer.encode(latents).flatten(0, 1)
    quantized = quantizer(latents.flatten(0, 1))
    assert torch.equal(codes, quantized.codes)
    torch.testing.assert_close(quantizer.embed(codes), quantized.latent, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_scale_brings_the_latent_closer():
    quantizer = with_margin(0.0).train()
    latents = random_latents(16)
    for _ in range(50):
        quantizer(latents)
    codes = quantizer.eval()(latents).codes
    errors = [float(F.mse_loss(quantizer.embed(codes, num), latents)) for num in range(len(GRIDS) + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(float(latents.square().mean()))


@torch.no_grad()
def test_the_inputs_of_all_scales_equal_the_inputs_of_each():
    quantizer, codes = tiny_quantizer(), random_codes(3, 21)
    partials = quantizer.partials(codes)
    assert [partial.shape for partial in partials] == [(3, LATENT_DIM, *grid) for grid in GRIDS]
    assert not partials[0].any()
    for scale, partial in enumerate(partials):
        torch.testing.assert_close(quantizer.partial(codes, scale), partial, atol=1e-6, rtol=1e-6)
        other = codes.clone()
        other[:, quantizer.pyramid.slices[scale].start :] = 0
        assert torch.equal(quantizer.partial(other, scale), quantizer.partial(codes, scale))


@torch.no_grad()
def test_lookup_gives_the_entries_of_a_scale():
    quantizer, codes = tiny_quantizer(), random_codes(3, 4)
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


def test_a_larger_margin_means_fewer_changes():
    latents = slowly_moving(20)
    changes = [num_changes(with_margin(margin).encode(latents)) for margin in (0.0, 0.1, 0.3, 1.0, 100.0)]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 2 * changes[2] > 0
    assert changes[-1] == 0


def test_a_sticky_code_stays_while_it_costs_at_most_the_margin_and_not_longer():
    quantizer, num_frames = with_margin(0.3), 100
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


def test_the_gradient_goes_straight_through_to_the_encoder():
    quantizer = tiny_quantizer()
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


def test_quantising_stays_in_full_precision_under_autocast():
    quantizer, latents = tiny_quantizer(), random_latents(50)
    with torch.autocast("cpu", torch.bfloat16):
        halved = quantizer(latents)
    whole = quantizer(latents)
    assert torch.equal(halved.codes, whole.codes)
    torch.testing.assert_close(halved.latent, whole.latent)


def test_evaluation_moves_no_codebook_and_training_does():
    quantizer, latents = tiny_quantizer(), random_latents(8)
    before = [codebook.vectors.clone() for codebook in codebooks_of(quantizer)]
    quantizer(latents)
    quantizer.encode(latents[None])
    assert all(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))
    quantizer.train()
    quantizer.encode(latents[None])
    assert all(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))
    quantizer(latents)
    assert not any(torch.equal(book.vectors, old) for book, old in zip(codebooks_of(quantizer), before, strict=True))


def test_an_entry_moves_to_the_mean_of_the_latents_it_stands_for():
    codebook = Codebook(vocabulary=2, dim=2, decay=0.5, restart_below=0.01)
    latents = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    codebook.update(latents, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(codebook.vectors, torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    codebook.update(latents + 1, torch.tensor([0, 0, 1]))
    # counts halve: the sums are 0.5 * (0.5 * old + new), the counts 0.5 * (0.5 * 2 + 2)
    torch.testing.assert_close(codebook.vectors, torch.tensor([[2 + 2 / 3, 2 / 3], [2 / 3, 5 + 2 / 3]]))


def test_entries_that_nobody_uses_are_restarted_from_the_batch():
    codebook = Codebook(vocabulary=8, dim=2, decay=0.9, restart_below=0.05)
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
    codebook = Codebook(vocabulary=20, dim=2, decay=0.98, restart_below=0.05)
    latents = torch.randn(16, 2)
    for _ in range(3):
        codebook.update(latents, torch.arange(16))
        torch.testing.assert_close(codebook.vectors[:16], latents)


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


def test_training_on_clusters_lowers_the_error_of_latents_never_seen():
    quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, vocabulary=32)).train()
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


def _train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(100 + rank)  # another seed on every rank: also the restarts must agree
    quantizer = tiny_quantizer().train()
    for step in range(3):
        quantizer(random_latents(4, seed=10 * step + rank))
    torch.save(quantizer.codebooks.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_with_different_batches_end_with_the_same_codebooks(tmp_path: Path):
    mp.spawn(_train_rank, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = tiny_quantizer().train()
    for step in range(3):
        alone(random_latents(4, seed=10 * step))
    assert not torch.equal(first["0.vectors"], codebooks_of(alone)[0].vectors)  # each rank has learned from both


def test_the_share_of_changes_counts_only_what_stands_still():
    codes = torch.tensor([[[1, 1, 1], [1, 2, 2], [3, 2, 1]]])
    still = torch.tensor([[[True, True, False], [True, False, False]]])
    assert float(still_change_share(codes, still)) == pytest.approx(2 / 3)
    assert float(still_change_share(codes, torch.zeros_like(still))) == 0
