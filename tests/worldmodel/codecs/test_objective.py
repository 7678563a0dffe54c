import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streams.clip import Batch, to_float
from tests.worldmodel.codecs.test_perceptual import narrow_vgg, weights_of
from tests.worldmodel.tiny import CLIPS, PICTURE, codebooks_of, tiny_quantizer
from tests.worldmodel.tiny_run import CLIPS as SOUND_CLIPS
from tests.worldmodel.tiny_run import SOUND
from worldmodel.codecs.objective import PictureObjective, SoundObjective, still_movement, still_places
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.settings import PictureLossSettings
from worldmodel.training.loop import KnowsShareDone

SAMPLES = SOUND_CLIPS.samples_per_frame


def batch_of(frames: Tensor, sound: Tensor | None = None, silent: tuple[int, ...] = ()) -> Batch:
    """A batch of these frames; the named clips have no sound."""
    count, num_frames = frames.shape[:2]
    has_sound = torch.full((count,), sound is not None)
    has_sound[list(silent)] = False
    return Batch(
        frames,
        torch.arange(num_frames).double().expand(count, -1) / 10,
        torch.zeros(count, num_frames, SAMPLES) if sound is None else sound,
        has_sound,
        ["video"] * count,
    )


def noisy_squares(num_clips: int = 2, num_frames: int = 5, noise: int = 2) -> Tensor:
    """Left half: ground with a little noise; right half: a flash that changes wholly."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.full((num_clips, num_frames, 3, 16, 16), 100)
    frames[..., 4:12, 2:6] = 200
    frames += torch.randint(-noise, noise + 1, frames.shape, generator=generator)
    frames[..., 8:] = torch.randint(0, 256, (num_clips, num_frames, 1, 1, 1), generator=generator)
    return frames.byte()


def picture_objective(settings: PictureLossSettings | None = None) -> PictureObjective:
    torch.manual_seed(0)
    codec = PictureVQ(PICTURE, CLIPS)
    codec.quantizer = tiny_quantizer()
    return PictureObjective(codec, settings).eval()


def tones(num_clips: int, num_frames: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pitch = torch.rand(num_clips, 1, generator=generator) * 1500 + 200
    seconds = torch.arange(num_frames * SAMPLES) / SOUND_CLIPS.sample_hz
    return (0.4 * torch.sin(2 * math.pi * pitch * seconds)).unflatten(1, (num_frames, SAMPLES))


def sound_objective() -> SoundObjective:
    torch.manual_seed(0)
    return SoundObjective(SoundVQ(SOUND, SOUND_CLIPS)).eval()


@torch.no_grad()
def test_the_loss_of_pictures_is_that_of_its_parts():
    objective = picture_objective(PictureLossSettings(still_weight=0.3, sticky=False))
    batch = batch_of(noisy_squares())
    loss, metrics = objective(batch)
    frames = to_float(batch.frames).flatten(0, 1)
    rebuilt, quantized = objective.codec(frames)
    squared = (rebuilt - frames).square().mean()
    expected = squared + 0.1 * (rebuilt - frames).abs().mean() + 0.25 * quantized.loss
    expected = expected + 0.3 * metrics["still_movement"]
    assert metrics["still_movement"] > 0
    torch.testing.assert_close(loss, expected)
    assert float(metrics["psnr"]) == pytest.approx(10 * math.log10(255**2 / float(squared * 127.5**2)), abs=1e-3)


def test_forty_steps_rebuild_two_pictures():
    torch.manual_seed(0)
    objective = PictureObjective(PictureVQ(PICTURE, CLIPS)).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    frames = torch.full((2, 4, 3, 16, 16), 30, dtype=torch.uint8)
    frames[1, :, :, :8] = 220
    for _ in range(40):
        loss, _ = objective(batch_of(frames))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        loss, metrics = objective.eval()(batch_of(frames))
    assert metrics["psnr"] > 20
    assert loss < 0.15


@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (1, 1)])
def test_still_places_equal_a_naive_loop(grid: tuple[int, int]):
    frames = noisy_squares(2, 4, noise=3)
    frames[0, 2, :, :6, :5] += 9
    found = still_places(to_float(frames), grid)
    rows, columns = 16 // grid[0], 16 // grid[1]
    for clip in range(2):
        for step in range(3):
            for place in range(grid[0] * grid[1]):
                row, column = divmod(place, grid[1])
                patch = (
                    ..., slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns)
                )  # fmt: skip
                change = (frames[clip, step + 1].float() - frames[clip, step].float()).abs()[patch].mean()
                assert found[clip, step, place] == (change < 2.0) or abs(change - 2.0) < 1e-4
    assert grid == (1, 1) or 0 < found.float().mean() < 1


def test_flicker_is_no_worse_with_stickiness_and_counts_still_patches_only():
    objective = picture_objective()
    flicker = objective.flicker(batch_of(noisy_squares(4, 8, noise=1)))
    sticky, plain = flicker["still_codes_that_change"], flicker["still_codes_that_change_unsticky"]
    assert 0 <= sticky <= plain <= 1
    assert plain > 0
    codec = objective.codec
    clips = to_float(noisy_squares(4, 8, noise=1))
    codes = codec.quantizer.encode(codec.latent(clips), sticky=False)[..., 5:]
    still = still_places(clips, (4, 4))
    changed = [bool(a != b) for a, b in zip(codes[:, 1:][still], codes[:, :-1][still], strict=True)]
    assert float(plain) == pytest.approx(sum(changed) / len(changed))


def test_a_picture_that_stands_still_does_not_flicker():
    frames = noisy_squares(1, 1).expand(1, 4, -1, -1, -1)
    assert set(map(float, picture_objective().flicker(batch_of(frames)).values())) == {0.0}


@torch.no_grad()
def test_the_error_of_sound_counts_only_clips_that_have_some():
    objective, sound = sound_objective(), tones(3)
    frames = torch.zeros(3, 4, 3, 16, 16, dtype=torch.uint8)
    _, metrics = objective(batch_of(frames, sound, silent=(1,)))
    slices = objective.codec.log_mel(sound[[0, 2]]).flatten(0, 1)
    rebuilt, _ = objective.codec(slices)
    expected = (rebuilt - slices).square().mean().sqrt()
    torch.testing.assert_close(metrics["log_mel_error"], expected)


def test_the_decoder_learns_nothing_from_clips_without_sound():
    sound, frames = tones(3), torch.zeros(3, 4, 3, 16, 16, dtype=torch.uint8)
    gradients = []
    for batch in (batch_of(frames, sound, silent=(1,)), batch_of(frames[[0, 2]], sound[[0, 2]])):
        objective = sound_objective()
        objective(batch)[0].backward()
        gradients.append([weight.grad for weight in objective.codec.decoder.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_batch_without_any_sound_has_a_finite_loss_and_gradient():
    objective = sound_objective().train()
    loss, metrics = objective(batch_of(torch.zeros(2, 4, 3, 16, 16, dtype=torch.uint8)))
    loss.backward()
    assert loss.isfinite()
    assert metrics["log_mel_error"] == 0
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in objective.parameters())


def test_forty_steps_of_tones_lower_the_error_of_tones_never_heard():
    torch.manual_seed(0)
    quantizer = replace(SOUND.quantizer, decay=0.8, vocabulary=32)
    objective = SoundObjective(SoundVQ(replace(SOUND, channels=64, quantizer=quantizer), SOUND_CLIPS))
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    frames = torch.zeros(8, 4, 3, 16, 16, dtype=torch.uint8)

    def error() -> float:
        with torch.no_grad():
            return float(objective.eval()(batch_of(frames, tones(8, seed=10**6)))[1]["log_mel_error"])

    before = error()
    for step in range(40):
        loss, _ = objective.train()(batch_of(frames, tones(8, seed=step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error() < 0.6 * before


def test_the_metrics_of_both_keep_their_names():
    frames = noisy_squares(2, 4)
    picture, sound = picture_objective(), sound_objective()
    both = [set(picture(batch_of(frames))[1]), set(picture.train()(batch_of(frames))[1])]
    assert both[0] == both[1] >= {"psnr", "commitment", "perplexity/scale_2", "dead_codes/scale_0"}
    heard = [set(sound(batch_of(frames, tones(2)))[1]), set(sound(replace(batch_of(frames)))[1])]
    assert heard[0] == heard[1] >= {"log_mel_error", "commitment", "perplexity/scale_1"}


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_both_say_how_rich_their_codes_are_and_which_scale_dies(kind: str):
    objective = picture_objective() if kind == "picture" else sound_objective()
    num_scales = len(objective.codec.pyramid.scales)
    means = {f"perplexity/scale_{index}": 10.4 + index for index in range(num_scales)}
    assert objective.in_short(means) == {"picture": "perplexity 10/11/12", "sound": "perplexity 10/11"}[kind]
    assert objective.alarms(means) == {}
    means["perplexity/scale_1"] = 1.2
    assert list(objective.alarms(means)) == ["scale_1"]
    assert objective.alarms(means)["scale_1"].startswith(f"scale 1 of the {kind} codec uses 1 of 16 codes: ")


def test_latents_that_stand_still_do_not_move_and_others_may():
    frames = to_float(noisy_squares(2, 4, noise=0))  # the left half stands still
    latent = torch.randn(2, 1, 4, 4, 4).repeat(1, 4, 1, 1, 1)
    latent[..., 2:] += torch.randn(2, 4, 4, 4, 2)
    assert still_movement(frames, latent) == 0
    latent[0, 2, :, 1, 0] += 3.0
    # two of the changes of 2 * 3 * 8 still places, each of 9 in the mean over channels
    expected = 18 / 48 / float(latent.square().mean())
    assert float(still_movement(frames, latent)) == pytest.approx(expected, rel=1e-4)


def test_weighing_the_movement_of_still_latents_makes_them_move_less():
    movements = []
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        objective = PictureObjective(PictureVQ(PICTURE, CLIPS), PictureLossSettings(still_weight=weight)).train()
        optimizer = torch.optim.Adam(objective.parameters(), lr=2e-3)
        for _ in range(20):
            loss, metrics = objective(batch_of(noisy_squares(2, 4)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        movements.append(float(metrics["still_movement"]))
    assert movements[1] < 0.5 * movements[0]


@torch.no_grad()
def test_codes_are_sticky_in_training_where_settings_say_so():
    plain, batch = picture_objective(PictureLossSettings(sticky=False)), batch_of(noisy_squares(2, 6))
    sticky = PictureObjective(plain.codec, PictureLossSettings(sticky=True)).eval()
    clips = to_float(batch.frames)
    rebuilt = plain.codec.decoder(plain.codec.quantizer.embed(plain.codec.encode(clips).flatten(0, 1)))
    psnr = 10 * torch.log10(4 / (rebuilt - clips.flatten(0, 1)).square().mean())
    torch.testing.assert_close(sticky(batch)[1]["psnr"], psnr, rtol=1e-4, atol=0.0)
    assert sticky(batch)[1]["psnr"] != plain(batch)[1]["psnr"]


def test_a_perceptual_distance_is_added_to_the_loss(tmp_path: Path):
    weights = weights_of(narrow_vgg())
    save_file(weights, tmp_path / "vgg.safetensors")
    digest = hashlib.sha256((tmp_path / "vgg.safetensors").read_bytes()).hexdigest()
    settings = PictureLossSettings(
        perceptual_weight=0.7, perceptual_file=str(tmp_path / "vgg.safetensors"), perceptual_sha256=digest
    )
    plain, batch = picture_objective(), batch_of(noisy_squares())
    with_distance = PictureObjective(plain.codec, settings).eval()
    with torch.no_grad():
        (before, _), (loss, metrics) = plain(batch), with_distance(batch)
    assert metrics["perceptual"] > 0
    torch.testing.assert_close(loss, before + 0.7 * metrics["perceptual"])


@torch.no_grad()
@pytest.mark.parametrize("make", [picture_objective, sound_objective])
def test_the_price_of_bits_rises_from_nothing_over_the_first_half(
    make: Callable[[], PictureObjective] | Callable[[], SoundObjective],
):
    objective, found = make(), {}
    assert isinstance(objective, KnowsShareDone)
    for codebook in codebooks_of(objective.codec.quantizer):
        codebook.counts.copy_(2.0 ** -torch.arange(len(codebook.counts)).clamp(max=20))
    batch = batch_of(noisy_squares(), tones(2, 5))
    for price, share in ((0.0, 1.0), (9.0, 0.0), (9.0, 0.2), (9.0, 0.5), (9.0, 1.0)):
        objective.codec.quantizer.bit_price, objective.share_done = price, share
        found[price, share] = float(objective(batch)[1]["commitment"])
    assert found[9.0, 0.0] == found[0.0, 1.0], found
    assert found[9.0, 0.0] < found[9.0, 0.2] < found[9.0, 0.5] == found[9.0, 1.0], found


def test_an_adversary_begins_when_it_is_time_and_only_then_learns():
    codec = picture_objective().codec
    objective = PictureObjective(codec, PictureLossSettings(adversarial_weight=0.5, adversarial_from=0.5))
    assert isinstance(objective, KnowsShareDone)  # so the loop tells it
    batch = batch_of(noisy_squares())
    found = []
    for share in (0.4, 0.6):
        objective.share_done = share
        objective.zero_grad()
        loss, metrics = objective(batch)
        loss.backward()
        assert objective.adversary is not None
        learned = [weight.grad is not None and bool(weight.grad.any()) for weight in objective.adversary.parameters()]
        found.append((bool(metrics["adversary"].isnan()), all(learned), any(learned)))
    assert found == [(True, False, False), (False, True, True)]
    with torch.no_grad():  # as a preview asks
        assert objective(batch)[1].keys() == metrics.keys()
