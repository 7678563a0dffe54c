import dataclasses

import pytest
import torch
from torch import Tensor

from tests.worldmodel.tiny import MODEL, TRUNK, VOCABULARY, codebooks_of, of_type, random_codes, tiny_model
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.decoder import FrameDecoder, ModalityInput, Readout
from worldmodel.model import WorldModel

ITEMS = 3


def tiny_decoder(lively: bool = True, copy_bias: float = 4.0, sound: bool = True) -> FrameDecoder:
    settings = dataclasses.replace(MODEL, copy_bias=copy_bias)
    return tiny_model(settings, sound, lively).decoder


def random_state(model: WorldModel | FrameDecoder, seed: int = 0) -> Tensor:
    decoder = model.decoder if isinstance(model, WorldModel) else model
    shape = (ITEMS, len(decoder.state_turns), TRUNK.dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frame_codes(decoder: FrameDecoder, seed: int) -> Tensor:
    return random_codes(ITEMS, decoder.slices[-1].stop, seed=seed)


def logits_of(decoder: FrameDecoder, state: Tensor, previous: Tensor, codes: Tensor) -> list[Tensor]:
    return [prediction.logits for prediction in decoder(state, previous, codes)]


def changed_scales(decoder: FrameDecoder, before: list[Tensor], after: list[Tensor]) -> list[int]:
    """Scales whose logits differ."""
    assert len(before) == len(after) == len(decoder.scales)
    return [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if not torch.allclose(a, b, atol=1e-6)]


def test_the_columns_of_the_scales_follow_each_other_picture_first_and_sound_last():
    decoder = tiny_decoder()
    sizes = [1, 4, 16, 1, 4]
    assert [scale.num_codes for scale in decoder.scales] == sizes
    assert [columns.stop - columns.start for columns in decoder.slices] == sizes
    assert [columns.start for columns in decoder.slices] == [0, 1, 5, 21, 22]
    assert decoder.parts == [slice(0, 21), slice(21, 26)]


@pytest.mark.parametrize("sound", [True, False])
@torch.no_grad()
def test_all_scales_at_once_equal_scale_by_scale(sound: bool):
    decoder = tiny_decoder(sound=sound)
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    at_once = logits_of(decoder, state, previous, codes)
    cache, decoded = decoder.start(state), torch.zeros_like(codes)
    for expected, scale, columns in zip(at_once, decoder.scales, decoder.slices, strict=True):
        logits = decoder.step(state, previous, decoded, cache)
        assert logits.shape == (ITEMS, scale.num_codes, VOCABULARY)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        decoded[:, columns] = codes[:, columns]


@pytest.mark.parametrize("level", range(5))
@torch.no_grad()
def test_a_scale_sees_coarser_codes_but_neither_its_own_nor_finer_ones(level: int):
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    other = codes.clone()
    other[:, decoder.slices[level]] = (codes[:, decoder.slices[level]] + 5) % VOCABULARY
    changed = changed_scales(
        decoder, logits_of(decoder, state, previous, codes), logits_of(decoder, state, previous, other)
    )
    # The finest codes of a modality are the input of none of its scales, and sound does not read the picture's latent.
    reach = {0: [1, 2], 1: [2], 2: [], 3: [4], 4: []}[level]
    assert [k for k in changed if k <= level] == []
    assert set(reach) <= set(changed)


@torch.no_grad()
def test_sound_sees_the_coarser_scales_of_the_picture_and_the_picture_sees_no_sound():
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    other = codes.clone()
    other[:, decoder.parts[0]] = (codes[:, decoder.parts[0]] + 5) % VOCABULARY
    assert {3, 4} <= set(
        changed_scales(decoder, logits_of(decoder, state, previous, codes), logits_of(decoder, state, previous, other))
    )
    other = codes.clone()
    other[:, decoder.parts[1]] = (codes[:, decoder.parts[1]] + 5) % VOCABULARY
    assert changed_scales(
        decoder, logits_of(decoder, state, previous, codes), logits_of(decoder, state, previous, other)
    ) == [4]


@torch.no_grad()
def test_every_scale_sees_the_previous_codes_and_the_state():
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    before = logits_of(decoder, state, previous, codes)
    everything = list(range(len(decoder.scales)))
    assert changed_scales(decoder, before, logits_of(decoder, state, frame_codes(decoder, 3), codes)) == everything
    assert changed_scales(decoder, before, logits_of(decoder, random_state(decoder, 1), previous, codes)) == everything


@torch.no_grad()
def test_every_token_of_the_state_is_seen():
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    before = logits_of(decoder, state, previous, codes)
    for token in range(state.shape[1]):
        other = state.clone()
        other[:, token] = -other[:, token]
        assert changed_scales(decoder, before, logits_of(decoder, other, previous, codes)) == list(
            range(len(decoder.scales))
        )


@torch.no_grad()
def test_a_state_token_is_spread_over_its_own_place():
    decoder = tiny_decoder()
    picture, num_tokens = of_type(decoder.inputs, ModalityInput)[0], 4
    state = torch.randn(1, num_tokens, TRUNK.dim)
    before = picture.spread_state(state)
    assert before.shape[-2:] == (4, 4)
    for token in range(num_tokens):
        other = state.clone()
        other[:, token] += 1
        row, column = 2 * (token // 2), 2 * (token % 2)
        expected = torch.zeros(4, 4, dtype=torch.bool)
        expected[row : row + 2, column : column + 2] = True
        assert torch.equal((picture.spread_state(other) != before).any(1)[0], expected)


@torch.no_grad()
def test_an_untrained_model_copies_where_the_copy_path_is_strong():
    decoder = tiny_decoder(lively=False, copy_bias=100.0)
    previous = frame_codes(decoder, 1)
    logits = logits_of(decoder, random_state(decoder), previous, frame_codes(decoder, 2))
    assert torch.equal(torch.cat([scale.argmax(-1) for scale in logits], 1), previous)


@torch.no_grad()
def test_an_untrained_model_without_the_copy_path_says_what_the_previous_latent_would_leave_over():
    decoder = tiny_decoder(lively=False, copy_bias=0.0, sound=False)
    previous, codes = frame_codes(decoder, 1), frame_codes(decoder, 2)
    logits = logits_of(decoder, random_state(decoder), previous, codes)
    quantizer = decoder.quantizers[0]
    assert isinstance(quantizer, MultiScaleQuantizer)
    latent = quantizer.embed(previous)
    for level, scale in enumerate(quantizer.pyramid.scales):
        left_over = cell_means(latent - quantizer.embed(codes, level), scale.height, scale.width)
        distances = (left_over[:, :, None] - codebooks_of(quantizer)[level].vectors).square().sum(-1)
        assert torch.equal(logits[level].argmax(-1), distances.argmin(-1))


def cell_means(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Mean of the square of latents under every cell of a grid: (item, place, channel)."""
    height, width = maps.shape[-2] // rows, maps.shape[-1] // columns
    cells = [
        maps[..., row * height : (row + 1) * height, column * width : (column + 1) * width].mean((-2, -1))
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(cells, 1)


@torch.no_grad()
def test_an_untrained_models_logits_are_the_same_under_autocast():
    # They are distances of latents and the copy path alone, which must not lose bits to bfloat16.
    decoder = tiny_decoder(lively=False)
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    with torch.autocast("cpu", torch.bfloat16):
        halved = logits_of(decoder, state, previous, codes)
    for half, whole in zip(halved, logits_of(decoder, state, previous, codes), strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole)


@torch.no_grad()
def test_the_error_of_an_untrained_model_is_that_of_repeating_the_previous_latent():
    decoder = tiny_decoder(lively=False, sound=False)
    previous, codes = frame_codes(decoder, 1), frame_codes(decoder, 2)
    predictions = decoder(random_state(decoder), previous, codes)
    quantizer = decoder.quantizers[0]
    assert isinstance(quantizer, MultiScaleQuantizer)
    change = quantizer.embed(codes) - quantizer.embed(previous)
    for prediction, scale, codebook in zip(predictions, quantizer.pyramid.scales, codebooks_of(quantizer), strict=True):
        expected = cell_means(change, scale.height, scale.width).square().mean(-1) / codebook.vectors.square().mean()
        torch.testing.assert_close(prediction.error, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_frame_that_is_repeated_leaves_an_untrained_model_no_error():
    decoder = tiny_decoder(lively=False)
    previous = frame_codes(decoder, 1)
    for prediction in decoder(random_state(decoder), previous, previous):
        assert prediction.error.max() < 1e-9


@torch.no_grad()
def test_repeating_a_frame_is_an_untrained_models_guess():
    # Sticky codes rarely change: before any training a frame should be more likely than not to stay.
    decoder = tiny_decoder(lively=False)
    previous = frame_codes(decoder, 1)
    logits = logits_of(decoder, random_state(decoder), previous, previous)
    chances = torch.cat([scale.softmax(-1) for scale in logits], 1).gather(-1, previous[..., None])
    assert chances.mean() > 0.5


def test_every_weight_of_a_lively_decoder_receives_a_gradient():
    decoder = tiny_decoder()
    state = random_state(decoder).requires_grad_()
    logits = logits_of(decoder, state, frame_codes(decoder, 1), frame_codes(decoder, 2))
    torch.cat([scale.log_softmax(-1)[..., 0] for scale in logits], 1).sum().backward()
    silent = [name for name, weight in decoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []
    assert state.grad is not None
    assert state.grad.any(-1).all()


def test_an_untrained_readout_can_learn_at_once():
    # Its linear layers start at zero: they must still receive a gradient, or copying would never end.
    decoder = tiny_decoder(lively=False)
    logits = logits_of(decoder, random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2))
    torch.cat([scale.log_softmax(-1)[..., 0] for scale in logits], 1).sum().backward()
    weights = [
        weight
        for readout in of_type(decoder.readouts, Readout)
        for weight in (readout.change.weight, readout.correct.weight)
    ]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)


@pytest.mark.parametrize("num_scales", [0, 1, 2, 3, 4, 5])
@torch.no_grad()
def test_a_finished_frame_has_the_latents_of_its_codes_however_many_scales_were_decoded(num_scales: int):
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    cache = decoder.start(state)
    for _ in range(num_scales):
        decoder.step(state, previous, codes, cache)
    found = decoder.finish(codes, cache)
    assert len(found) == 2
    for latent, quantizer, part in zip(found, decoder.quantizers, decoder.parts, strict=True):
        assert torch.equal(latent, quantizer.embed(codes[:, part]))


@torch.no_grad()
def test_a_frame_after_known_latents_has_the_logits_of_one_after_their_codes():
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    before = [q.embed(previous[:, part]) for q, part in zip(decoder.quantizers, decoder.parts, strict=True)]
    plain, known = decoder.start(state), decoder.start(state, before)
    for _ in decoder.scales:
        expected = decoder.step(state, previous, codes, plain)
        assert torch.equal(decoder.step(state, previous, codes, known), expected)


@torch.no_grad()
def test_items_do_not_see_each_other():
    decoder = tiny_decoder()
    state, previous, codes = random_state(decoder), frame_codes(decoder, 1), frame_codes(decoder, 2)
    alone = logits_of(decoder, state[1:2], previous[1:2], codes[1:2])
    for together, single in zip(logits_of(decoder, state, previous, codes), alone, strict=True):
        torch.testing.assert_close(together[1:2], single, atol=1e-5, rtol=1e-5)
