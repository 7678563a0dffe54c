import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streams.mel import log_mel
from tests.worldmodel.tiny import SOUND_QUANTIZER, VOCABULARY, tiny_quantizer
from tests.worldmodel.tiny_run import CLIPS, SOUND
from worldmodel.codecs.sound import LOUD, SoundVQ
from worldmodel.settings import QuantizerSettings, SoundCodecSettings

SAMPLES = CLIPS.samples_per_frame


def tiny_codec() -> SoundVQ:
    torch.manual_seed(0)
    codec = SoundVQ(SOUND, CLIPS).eval()
    codec.quantizer = tiny_quantizer(SOUND_QUANTIZER, seed=1)
    return codec


def noise(num_clips: int, num_frames: int, seed: int = 0) -> Tensor:
    """Noise that is louder in every second frame."""
    generator = torch.Generator().manual_seed(seed)
    sound = torch.randn(num_clips, num_frames, SAMPLES, generator=generator) * 0.02
    sound[:, ::2] *= 10
    return sound.clamp(-1, 1)


def test_sound_becomes_a_pyramid_of_codes_and_sound_of_the_same_length():
    codec, sound = tiny_codec(), noise(2, 4)
    codes = codec.encode(sound)
    assert codes.shape == (2, 4, codec.pyramid.num_codes) == (2, 4, 5)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < VOCABULARY
    decoded = codec.decode(codes)
    assert decoded.shape == sound.shape
    assert decoded.abs().max() <= 1
    assert decoded.isfinite().all()
    assert torch.equal(decoded, codec.decode(codes))
    assert codec.decode_log_mel(codes).shape == (2, 4, SOUND.num_mels, SOUND.slices_per_frame)


def test_codes_of_a_frame_do_not_depend_on_what_comes_after():
    codec, sound = tiny_codec(), noise(1, 6)
    for frame in range(1, 6):
        changed = sound.clone()
        changed[:, frame:] = noise(1, 6, seed=frame)[:, frame:] * 3
        assert torch.equal(codec.encode(changed)[:, :frame], codec.encode(sound)[:, :frame])
        assert torch.equal(codec.encode(sound[:, :frame]), codec.encode(sound)[:, :frame])


def test_codes_are_sticky_from_frame_to_frame():
    codec, sound = tiny_codec(), noise(1, 5)
    whole = codec.encode(sound)
    latent = codec.encoder(codec.log_mel(sound).flatten(0, 1))[:, :, None].unflatten(0, (1, 5))
    assert torch.equal(whole, codec.quantizer.encode(latent))
    last = codec.quantizer.encode(latent[:, 4:], previous=whole[:, 3])
    assert torch.equal(last[:, 0], whole[:, 4])


@torch.no_grad()
def test_slices_are_brought_near_minus_one_to_one():
    codec = tiny_codec()
    for sound in (
        noise(2, 4),
        torch.zeros(1, 4, SAMPLES),
        0.5 * torch.sin(torch.arange(4 * SAMPLES) / 5).view(1, 4, -1),
    ):
        slices = codec.log_mel(sound)
        assert slices.shape == (len(sound), 4, SOUND.num_mels, SOUND.slices_per_frame)
        assert slices.abs().max() < 2
        mel = log_mel(sound, SOUND.num_mels, SOUND.slices_per_frame, SOUND.fft_samples, CLIPS.sample_hz)
        silence = math.log(SOUND.floor)
        heard = mel.clamp(min=silence)
        torch.testing.assert_close((slices + 1) / 2 * (LOUD - silence) + silence, heard, atol=1e-4, rtol=0)


def test_silent_frames_have_one_and_the_same_code():
    codec = tiny_codec()
    codes = codec.encode(torch.zeros(2, 4, SAMPLES))
    assert (codes == codes[0, 0]).all()


def test_silence_decoded_from_its_slices_is_silent(monkeypatch: pytest.MonkeyPatch):
    codec = tiny_codec()
    silence = codec.log_mel(torch.zeros(1, 3, SAMPLES))
    monkeypatch.setattr(codec, "decode_log_mel", lambda codes: silence)
    assert codec.decode(torch.zeros(1, 3, 5, dtype=torch.int64)).abs().max() < 2e-3


@torch.no_grad()
def test_louder_sound_is_nearer_to_one_and_has_another_latent():
    codec = tiny_codec()
    quiet, loud = (codec.log_mel(noise(1, 1) * gain).flatten(0, 1) for gain in (0.1, 1.0))
    assert (loud > quiet).float().mean() > 0.9
    assert (codec.encoder(loud) - codec.encoder(quiet)).abs().max() > 1e-2


@torch.no_grad()
def test_the_forward_pass_rebuilds_what_decoding_gives_where_no_code_is_sticky():
    codec = tiny_codec()
    slices = codec.log_mel(noise(2, 3)).flatten(0, 1)
    rebuilt, quantized = codec(slices)
    assert rebuilt.shape == slices.shape
    torch.testing.assert_close(codec.decode_log_mel(quantized.codes[None])[0], rebuilt, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grids", [((1, 1), (2, 4)), ((1, 1), (1, 3)), ((1, 8),)])
def test_a_grid_that_does_not_divide_the_slices_is_refused(grids: tuple[tuple[int, int], ...]):
    settings = replace(SOUND, quantizer=QuantizerSettings(grids=grids, vocabulary=8, dim=4))
    with pytest.raises(ValueError, match=r"slices_per_frame=4; change sound\.quantizer\.grids"):
        SoundVQ(settings, CLIPS)


def test_the_default_settings_fit_the_default_clips():
    clips = replace(CLIPS, sample_hz=16000)
    codec = SoundVQ(SoundCodecSettings(), clips).eval()
    sound = torch.randn(1, 2, clips.samples_per_frame) * 0.1
    assert codec.encode(sound).shape == (1, 2, 7)
    assert codec.decode(codec.encode(sound)).shape == sound.shape


def test_encoding_needs_no_gradient_and_moves_no_codebook():
    codec = tiny_codec().train()
    before = codec.quantizer.codebooks[0].vectors.clone()
    assert not codec.decode(codec.encode(noise(1, 3))).requires_grad
    assert torch.equal(codec.quantizer.codebooks[0].vectors, before)


def test_frame_by_frame_it_hears_what_it_hears_at_once():
    codec, sound = tiny_codec(), noise(2, 5)
    sound[:, 1::2] = 0.0  # into silence reaches the loud frame before it
    codec.quantizer.sticky_margin = 0.0
    with torch.no_grad():
        codec.encoder[-1].weight.mul_(30)  # type: ignore[operator, union-attr]
    codes = codec.encode(sound)
    previous = None
    for frame in range(5):
        start = max(0, frame - 1)
        previous = codec.encode(sound[:, start : frame + 1], previous, num_before=frame - start)[:, 0]
        assert torch.equal(previous, codes[:, frame])
    alone = codec.encode(sound[:, 1:2], codes[:, 0])[:, 0]
    assert not torch.equal(alone, codes[:, 1])  # without what was before it, it sounds different
