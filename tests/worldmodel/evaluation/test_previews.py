import pytest
import torch

from tests.worldmodel.evaluation.test_films import batch
from tests.worldmodel.tiny_run import tiny_run
from worldmodel.cache.latents import CodeBatch
from worldmodel.evaluation.films import decode_clips, encode_clips
from worldmodel.evaluation.previews import preview_pictures
from worldmodel.settings import SamplingSettings


def test_a_preview_shows_truth_and_rollout_side_by_side_with_sound():
    clips = batch(8)
    strip, frames, sound, reconstruction = preview_pictures(tiny_run(), clips, 5)
    assert strip.shape[1] > 8 * 96
    assert strip.shape[2] == 3
    assert frames.shape == (8, 3, 16, 4 * 16)
    assert frames[..., :16].equal(clips.frames[0])
    assert frames[..., 32:48].equal(clips.frames[1])
    assert sound is not None
    assert sound.shape == (6400,)
    assert reconstruction.shape[1] > 8 * 96


def test_the_context_of_the_rollout_is_what_the_codec_makes_of_it():
    run, clips = tiny_run(), batch(8)
    frames = preview_pictures(run, clips, 5, num_clips=1).frames
    decoded = decode_clips(run, encode_clips(run, clips))[0].frames
    assert (frames[:3, ..., 16:].int() - decoded[:3].int()).abs().max() <= 1
    assert (frames[3:, ..., 16:].int() - decoded[3:].int()).abs().max() > 1


@pytest.mark.parametrize("sound", [True, False])
def test_cached_codes_are_shown_like_the_clips_they_were_made_of(sound: bool):
    run, clips = tiny_run(sound), batch(8)
    whole = tiny_run()
    codes = encode_clips(whole, clips)
    cached = CodeBatch(
        codes[..., :21], codes[..., :21], codes[:, ::2, :21], codes[..., 21:], clips.has_sound, clips.frames
    )
    one, two = (preview_pictures(run, given, 5) for given in (clips, cached))
    assert one.frames[..., 16:32].equal(two.frames[..., 16:32])
    assert (two.frames[..., :16].int() - decode_clips(whole, codes)[0].frames.int()).abs().max() <= 1
    assert (one.sound is None) == (two.sound is None) == (not sound)


def test_a_preview_leaves_the_draws_of_the_training_alone():
    before = torch.random.get_rng_state()
    run, clips = tiny_run(sound=False), batch(8)
    torch.random.set_rng_state(before)
    one = preview_pictures(run, clips, 5)
    assert torch.random.get_rng_state().equal(before)
    other = preview_pictures(run, clips, 5, seed=1)
    greedy = preview_pictures(run, clips, 5, sampling=SamplingSettings(temperature=[0.0]))
    assert not one.frames.equal(other.frames)
    assert not one.frames.equal(greedy.frames)


def test_reconstructions_are_shown_as_small_as_the_thumbnails():
    run, clips = tiny_run(sound=False), batch(8)
    codes = encode_clips(run, clips)
    small = clips.frames[..., ::2, ::2]
    cached = CodeBatch(codes[..., :21], codes[..., :21], codes[:, ::2, :21], codes[..., 21:], clips.has_sound, small)
    assert (
        preview_pictures(run, cached, 5).reconstruction.shape == preview_pictures(run, clips, 5).reconstruction.shape
    )  # both enlarged


def test_one_frame_of_context_remains_however_long_the_horizon():
    run, clips = tiny_run(sound=False), batch(8)
    assert preview_pictures(run, clips, 20).frames.equal(preview_pictures(run, clips, 7).frames)


@pytest.mark.parametrize(("horizon", "num_frames"), [(0, 8), (1, 1)])
def test_a_preview_without_horizon_or_context_is_refused(horizon: int, num_frames: int):
    with pytest.raises(ValueError, match=f"a horizon of {horizon} in clips of {num_frames} frames: 1 and 2 are needed"):
        preview_pictures(tiny_run(sound=False), batch(num_frames), horizon)
