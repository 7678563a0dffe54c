import pytest
import torch
import torchaudio

from streams.mel import FLOOR, invert, log_mel

HZ, SAMPLES, SLICES, FFT, MELS = 16000, 1600, 8, 512, 48


def tone(num_frames: int, hz: float = 700.0) -> torch.Tensor:
    time = torch.arange(num_frames * SAMPLES) / HZ
    return (0.3 * torch.sin(2 * torch.pi * hz * time) * (1 + torch.sin(2 * torch.pi * 3 * time)) / 2).reshape(
        -1, SAMPLES
    )


def slices_of(sound: torch.Tensor) -> torch.Tensor:
    return log_mel(sound, MELS, SLICES, FFT, HZ)


def test_slices_are_those_of_torchaudio_shifted_to_look_back_only():
    sound = tone(5)
    hop = SAMPLES // SLICES
    spectrogram = torchaudio.transforms.MelSpectrogram(HZ, FFT, hop_length=hop, n_mels=MELS, power=1.0, center=False)
    expected = spectrogram(torch.nn.functional.pad(sound.flatten(), (FFT - hop, 0))).clamp(min=FLOOR).log()
    found = slices_of(sound).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("samples", "slices"), [(1600, 8), (1067, 8), (800, 5)])
def test_no_slice_hears_what_comes_after_its_frame(samples: int, slices: int):
    sound = torch.rand(6, samples) - 0.5
    before = log_mel(sound, 32, slices, FFT, HZ)
    sound[3:] = torch.rand(3, samples)
    after = log_mel(sound, 32, slices, FFT, HZ)
    assert before.shape == (6, 32, slices)
    torch.testing.assert_close(before[:3], after[:3])
    assert (before[3] - after[3]).abs().max() > 0.1


def test_the_last_sample_of_a_frame_is_heard_in_that_frame():
    sound = torch.zeros(3, SAMPLES)
    sound[1, -20:] = 1.0
    found = slices_of(sound)
    assert (found[1, :, -1] > found[0, :, -1] + 1).any()


def test_silence_is_the_floor():
    torch.testing.assert_close(slices_of(torch.zeros(2, SAMPLES)), torch.full((2, MELS, SLICES), FLOOR).log())


def test_clips_are_independent():
    sound = torch.stack([tone(3), tone(3, 1500.0)])
    torch.testing.assert_close(slices_of(sound)[1], slices_of(sound[1]))


def test_a_tone_comes_back_at_its_pitch_and_place():
    sound = torch.zeros(8, SAMPLES)
    sound[3:5] = tone(2)
    back = invert(slices_of(sound), SAMPLES, FFT, HZ)
    assert back.shape == sound.shape
    loudness = back.square().mean(dim=1).sqrt()
    assert loudness[3:5].min() > 0.05
    assert loudness[[0, 1, 2, 6, 7]].max() < 0.02
    spectrum = torch.fft.rfft(back[3:5].flatten()).abs()
    assert spectrum.argmax() * HZ / (2 * SAMPLES) == pytest.approx(700, abs=40)


def test_an_onset_comes_back_within_a_slice():
    sound = torch.zeros(6, SAMPLES)
    sound[2, 800:] = tone(1)[0, 800:] + 0.2 * torch.sin(torch.arange(800) * 0.5)
    back = invert(slices_of(sound), SAMPLES, FFT, HZ).flatten()
    first = int((back.abs() > 0.1 * back.abs().max()).nonzero()[0])
    assert first == pytest.approx(2 * SAMPLES + 800, abs=FFT)


def test_the_way_back_has_the_right_slices():
    sound = tone(6)
    slices = slices_of(sound)
    again = slices_of(invert(slices, SAMPLES, FFT, HZ))
    loud = slices > slices.max() - 3
    assert (again - slices)[loud].abs().mean() < 0.5


def test_the_way_back_is_the_same_every_time():
    slices = slices_of(tone(3))
    torch.testing.assert_close(invert(slices, SAMPLES, FFT, HZ), invert(slices, SAMPLES, FFT, HZ), atol=0, rtol=0)


def test_frames_that_the_slices_do_not_divide_come_back_whole():
    sound = torch.rand(2, 4, 1067) - 0.5
    assert invert(log_mel(sound, 32, 8, FFT, HZ), 1067, FFT, HZ).shape == sound.shape


def test_windows_that_leave_gaps_are_refused():
    with pytest.raises(ValueError, match="do not cover a frame of 1600"):
        log_mel(torch.zeros(1, SAMPLES), MELS, 2, FFT, HZ)
