from fractions import Fraction

import av
import numpy as np
import pytest

from streams.pyav.mixing import Mixer, Resampler
from tests.streams.ffmpeg import ffmpeg


def noise(num_channels: int, num: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.4, 0.4, (num_channels, num)).astype(np.float32)


def frame_of(sound: np.ndarray, kind: str, layout: str, hz: int = 48000) -> av.AudioFrame:
    scale = {"s16": 2.0**15, "s32": 2.0**31, "u8": 2.0**7}.get(kind.removesuffix("p"), 1.0)
    dtype = {"s16": "i2", "s32": "i4", "u8": "u1", "dbl": "f8", "flt": "f4"}[kind.removesuffix("p")]
    values = (sound.astype(np.float64) * scale + (128 if kind.startswith("u8") else 0)).astype(dtype)
    frame = av.AudioFrame.from_ndarray(values if kind.endswith("p") else values.T.reshape(1, -1).copy(), kind, layout)
    frame.sample_rate, frame.time_base = hz, Fraction(1, hz)
    return frame


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 16000), (44100, 16000), (8000, 44100), (44056, 16000)])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_blocks_are_resampled_as_ffmpeg_does(from_hz: int, to_hz: int, num_channels: int):
    resample = Resampler(from_hz, to_hz, num_channels)
    for block in range(3):
        sound = noise(num_channels, resample.step * (-(-20000 // resample.step) + block))
        quiet = np.pad(sound, ((0, 0), (200, 200)))[:, 200:]
        output, _ = ffmpeg(
            "-f", "f32le", "-ar", str(from_hz), "-ac", str(num_channels), "-i", "-", "-ar", str(to_hz), "-f", "f32le",
            "-", sent=quiet.T.tobytes(),
        )  # fmt: skip
        expected = np.frombuffer(output, np.float32).reshape(-1, num_channels).T
        resampled = resample(sound)
        assert resampled.shape[1] * from_hz == sound.shape[1] * to_hz
        # ffmpeg makes up some sound before the first sample.
        edge = 60 * max(1, to_hz // from_hz)
        np.testing.assert_allclose(resampled[:, edge:], expected[:, edge : resampled.shape[1]], atol=2e-4)


def test_equal_rates_change_nothing():
    sound = noise(2, 1000)
    assert Resampler(44100, 44100, 2)(sound) is sound


@pytest.mark.parametrize("kind", ["fltp", "flt", "s16", "s16p", "s32", "u8", "dbl"])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1"])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_channels_are_mixed_as_ffmpeg_does(kind: str, layout: str, num_channels: int):
    if layout == "7.1" and kind.endswith("p"):
        pytest.skip("PyAV makes no such frames of so many channels")
    count = av.AudioLayout(layout).nb_channels
    sound = noise(count, 3000)
    raw = {"flt": "f32le", "dbl": "f64le", "s16": "s16le", "s32": "s32le", "u8": "u8"}[kind.removesuffix("p")]
    packed = frame_of(sound, kind.removesuffix("p"), layout).to_ndarray().tobytes()
    output, _ = ffmpeg(
        "-f", raw, "-ar", "48000", "-ch_layout", layout, "-i", "-", "-ac", str(num_channels), "-f", "f32le", "-",
        sent=packed,
    )  # fmt: skip
    expected = np.frombuffer(output, np.float32).reshape(-1, num_channels).T
    mixer = Mixer(frame_of(sound, kind, layout), num_channels)
    assert sum(mixer.write(frame_of(part, kind, layout)) for part in np.split(sound, 3, axis=1)) == 3000
    np.testing.assert_allclose(mixer.take(), expected, atol=2e-3 if kind[0] != "f" else 1e-5)


def test_frames_of_another_kind_become_like_the_first():
    sound = noise(2, 4800)
    mixer = Mixer(frame_of(sound, "fltp", "stereo"), 2)
    others = (frame_of(sound, "fltp", "stereo"), frame_of(sound, "s16", "stereo"), frame_of(sound[:1], "fltp", "mono"))
    lengths = [mixer.write(frame) for frame in others]
    assert lengths == [4800, 4800, 4800]
    mixed = mixer.take()
    np.testing.assert_allclose(mixed[:, 4800:9600], mixed[:, :4800], atol=1e-4)
    np.testing.assert_allclose(mixed[0, 9600:], mixed[1, 9600:], atol=1e-6)
    assert abs(mixer.write(frame_of(sound, "fltp", "stereo", 24000)) - 9600) < 100
    assert mixer.take().shape[1] > 9000
    assert mixer.take().shape == (2, 0)
