import copy
import dataclasses

import pytest
import torch

from tests.worldmodel.tiny import (
    LATENT_DIM,
    MODEL,
    QUANTIZER,
    SOUND_QUANTIZER,
    TRUNK,
    VOCABULARY,
    codebooks_of,
    of_type,
    random_codes,
    tiny_model,
    tiny_quantizer,
    yes,
)
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.model import FrameEmbedding, WorldModel
from worldmodel.settings import ModelSettings, QuantizerSettings, TransformerSettings

NUM_PICTURE_CODES, NUM_SOUND_CODES = 21, 5
TWO_ROWS_OF_SOUND = QuantizerSettings(grids=((1, 1), (2, 4)), vocabulary=VOCABULARY, dim=4)


def test_a_frames_codes_are_the_pictures_and_then_the_sounds():
    assert tiny_model().num_codes == NUM_PICTURE_CODES
    model = tiny_model(sound=True)
    assert model.num_codes == NUM_PICTURE_CODES + NUM_SOUND_CODES
    # patch 2 makes 2x2 tokens of the picture's 4x4 latents; sound is one token
    assert model.states(random_codes(2, 3, model.num_codes), yes(2)).shape == (2, 3, 5, TRUNK.dim)


def test_one_dial_sets_width_depth_and_heads():
    model = tiny_model(ModelSettings(depth=3, trunk=TransformerSettings(attention="dense")))
    assert (model.settings.trunk.dim, len(model.trunk.blocks), len(model.decoder.blocks)) == (192, 3, 2)
    assert (model.settings.trunk.num_heads, model.settings.trunk.attention) == (3, "dense")
    assert model.settings == model.settings.sized()
    given = ModelSettings(trunk=TRUNK)
    assert given.sized() is given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings(depth=-1), "model.depth=-1: give 1 or more"),
        (
            ModelSettings(depth=2, trunk=TransformerSettings(dim=64)),
            "model.depth=2 makes model.trunk 128 wide and 2 deep",
        ),
        (ModelSettings(depth=2, decoder=TransformerSettings(depth=7)), "makes model.decoder 128 wide and 1 deep, but"),
    ],
)
def test_a_dial_beside_sizes_that_contradict_it_is_refused(settings: ModelSettings, message: str):
    with pytest.raises(ValueError, match=message):
        settings.sized()


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_patch_of_latents_is_one_token(patch: int):
    model = tiny_model(dataclasses.replace(MODEL, patch=patch))
    assert model.states(random_codes(1, 2, model.num_codes), yes(1)).shape[2] == (4 // patch) ** 2


def test_training_moves_neither_codebooks_nor_smoothing():
    model = tiny_model(sound=True)
    model.train()
    assert model.training
    assert model.trunk.training
    before = {name: value.clone() for name, value in model.quantizers.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    codes = random_codes(2, 4, model.num_codes)
    states = model.states(codes[:, :-1], yes(2)).flatten(0, 1)
    predicted = model.decoder(states, codes[:, :-1].flatten(0, 1), codes[:, 1:].flatten(0, 1))
    torch.cat([scale.logits.log_softmax(-1)[..., 0] for scale in predicted], 1).sum().backward()
    optimizer.step()
    assert all(weight.grad is None and not weight.requires_grad for weight in model.quantizers.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.quantizers.state_dict().items())


def test_train_mode_never_reaches_the_quantizers():
    model = tiny_model(sound=True)
    model.train()
    assert not any(module.training for module in model.quantizers.modules())
    # so that not even a pass of latents through them moves a codebook
    picture = of_type(model.quantizers, MultiScaleQuantizer)[0]
    before = codebooks_of(picture)[0].vectors.clone()
    picture(torch.randn(8, 4, 4, 4))
    assert torch.equal(codebooks_of(picture)[0].vectors, before)
    model.eval()
    assert not model.training


def test_every_weight_but_the_codecs_receives_a_gradient():
    model = tiny_model(sound=True)
    codes, has_sound = random_codes(2, 4, model.num_codes), torch.tensor([True, False])
    states = model.states(codes[:, :-1], has_sound).flatten(0, 1)
    predicted = model.decoder(states, codes[:, :-1].flatten(0, 1), codes[:, 1:].flatten(0, 1))
    torch.cat([scale.logits.log_softmax(-1)[..., 0] for scale in predicted], 1).sum().backward()
    silent = {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    }
    assert silent == {"embeddings.0.absent"}  # the picture is never absent


def test_quantizers_are_registered_once_and_shared_with_the_decoder_also_in_a_copy():
    for model in (tiny_model(sound=True), copy.deepcopy(tiny_model(sound=True))):
        assert not any(name.startswith("decoder.quantizers") for name in model.state_dict())
        assert all(a is b for a, b in zip(model.quantizers, model.decoder.quantizers, strict=True))


@torch.no_grad()
def test_weights_loaded_from_a_file_of_another_start_give_the_same_states():
    first, second = tiny_model(sound=True), tiny_model(sound=True, seed=9)
    second.load_state_dict(first.state_dict())
    codes = random_codes(2, 3, first.num_codes)
    assert torch.equal(first.states(codes, yes(2)), second.states(codes, yes(2)))


@torch.no_grad()
def test_sound_that_is_absent_is_ignored_and_sound_that_is_there_is_heard():
    model = tiny_model(sound=True)
    codes, has_sound = random_codes(2, 4, model.num_codes), torch.tensor([False, True])
    other = codes.clone()
    other[..., NUM_PICTURE_CODES:] = (other[..., NUM_PICTURE_CODES:] + 3) % VOCABULARY
    states, changed = model.states(codes, has_sound), model.states(other, has_sound)
    assert torch.equal(states[0], changed[0])
    assert ((states[1] - changed[1]).abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_absent_sound_is_told_from_sound():
    model = tiny_model(sound=True)
    codes = random_codes(2, 3, model.num_codes)
    with_sound, without = model.embed(codes, yes(2)), model.embed(codes, ~yes(2))
    assert torch.equal(with_sound[:, :, :4], without[:, :, :4])
    assert not torch.allclose(with_sound[:, :, 4:], without[:, :, 4:], atol=1e-3)


@torch.no_grad()
def test_has_sound_means_nothing_to_a_model_without_sound():
    model = tiny_model()
    codes = random_codes(2, 3, model.num_codes)
    assert torch.equal(model.states(codes, yes(2)), model.states(codes, ~yes(2)))


@pytest.mark.parametrize("start", [1, 3])
@torch.no_grad()
def test_tokens_of_a_clip_with_the_frame_before_it_equal_those_in_the_longer_clip(start: int):
    model = tiny_model(sound=True)
    codes = random_codes(2, 6, model.num_codes)
    tokens = model.embed(codes[:, start:], yes(2), before=codes[:, start - 1])
    torch.testing.assert_close(tokens, model.embed(codes, yes(2))[:, start:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_first_frame_of_a_clip_stands_still():
    model = tiny_model(sound=True)
    codes = random_codes(2, 1, model.num_codes)
    torch.testing.assert_close(model.embed(codes, yes(2)), model.embed(codes, yes(2), before=codes[:, 0]))


@torch.no_grad()
def test_what_stands_still_moves_nothing():
    model = tiny_model()
    codes = random_codes(1, 1, model.num_codes).expand(1, 3, model.num_codes)
    tokens = model.embed(codes, yes(1))
    compare = of_type(model.embeddings, FrameEmbedding)[0].compare
    compare.weight[:, LATENT_DIM:] = 100.0  # what weighs the change since the frame before
    torch.testing.assert_close(model.embed(codes, yes(1)), tokens)


@torch.no_grad()
def test_tokens_see_motion():
    model = tiny_model()
    codes = random_codes(1, 1, model.num_codes)
    still = model.embed(codes, yes(1), before=codes[:, 0])
    moved = model.embed(codes, yes(1), before=random_codes(1, model.num_codes, seed=1))
    assert ((still - moved).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_frame_by_frame_equals_whole_clips_far_past_the_window():
    model = tiny_model(sound=True)
    codes, has_sound, cache = random_codes(2, 31, model.num_codes), torch.tensor([True, False]), model.start()
    states = torch.stack([model.step(frame, has_sound, cache) for frame in codes.unbind(1)], 1)
    torch.testing.assert_close(states, model.states(codes, has_sound), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_frame_that_was_decoded_goes_on_as_one_that_is_read():
    model, has_sound = tiny_model(sound=True), torch.tensor([True, False])
    codes, read, gone_on = random_codes(2, 4, model.num_codes), model.start(), model.start()
    state = model.read(codes[:, :3], has_sound, gone_on)
    model.read(codes[:, :3], has_sound, read)
    decoded = model.decoder.start(state, gone_on.latents)
    model.decoder.step(state, codes[:, 2], codes[:, 3], decoded)
    found = model.step(codes[:, 3], has_sound, gone_on, decoded)
    assert torch.equal(found, model.step(codes[:, 3], has_sound, read))


@torch.no_grad()
def test_a_state_knows_no_later_frame():
    model = tiny_model(sound=True)
    codes = random_codes(1, 5, model.num_codes)
    other = codes.clone()
    other[:, 3] = (other[:, 3] + 1) % VOCABULARY
    difference = (model.states(codes, yes(1)) - model.states(other, yes(1))).abs().amax((0, 2, 3))
    assert (difference[:3] < 1e-6).all()
    assert (difference[3:] > 1e-4).all()


def test_shapes_are_known_on_the_meta_device_without_computing():
    model = tiny_model(sound=True).to("meta")
    codes = random_codes(2, 3, model.num_codes).to("meta")
    states = model.states(codes, yes(2).to("meta"))
    assert (states.device.type, states.shape) == ("meta", (2, 3, 5, TRUNK.dim))
    predicted = model.decoder(states[:, 0], codes[:, 0], codes[:, 1])
    assert [scale.logits.shape for scale in predicted] == [(2, size, VOCABULARY) for size in (1, 4, 16, 1, 4)]
    assert model.step(codes[:, 0], yes(2).to("meta"), model.start()).shape == (2, 5, TRUNK.dim)


def test_a_model_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        model = WorldModel(MODEL, MultiScaleQuantizer(QUANTIZER), MultiScaleQuantizer(SOUND_QUANTIZER))
    assert all(weight.device.type == "meta" for weight in model.parameters())


@torch.no_grad()
def test_a_sound_pyramid_may_have_several_rows():
    torch.manual_seed(0)
    model = WorldModel(MODEL, tiny_quantizer(), tiny_quantizer(TWO_ROWS_OF_SOUND)).eval()
    codes = random_codes(2, 3, model.num_codes)
    states = model.states(codes, yes(2))
    assert states.shape == (2, 3, 5, TRUNK.dim)
    predicted = model.decoder(states[:, 0], codes[:, 0], codes[:, 1])
    assert [scale.logits.shape[1] for scale in predicted] == [1, 4, 16, 1, 8]


def test_a_patch_that_does_not_divide_the_grid_is_an_error():
    with pytest.raises(ValueError, match=r"model.patch=3 must divide the finest grid 4x4"):
        WorldModel(dataclasses.replace(MODEL, patch=3), tiny_quantizer(), None)


def test_trunk_and_decoder_of_different_widths_are_an_error():
    wider = TransformerSettings(dim=64, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=r"model.decoder.dim=64 must equal model.trunk.dim=32"):
        WorldModel(dataclasses.replace(MODEL, decoder=wider), tiny_quantizer(), None)


def test_the_quantizers_are_taken_over_as_they_are():
    quantizer = tiny_quantizer()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    WorldModel(MODEL, quantizer, None)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
