"""Sound of every codec, container, rate and layout against the ffmpeg program."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.pyav.sound import SoundReader
from tests.streams.ffmpeg import ffmpeg, reference_sound
from tests.streams.pyav.sounds import KINDS, SECONDS, best_shift, make_sound

HZ = 16000
# In no order; those from 3.9 s on follow each other.
STARTS_SECONDS = (5.3, 1.21, 0.0, 3.9, 4.6, 5.3, 7.25)

# Frames of many sizes under a clock of whole milliseconds: after a seek, half of one is the bound (8 samples).
UNEVEN = ("vorbis_webm", "pcm_surround")
# ffmpeg makes up some sound before and after a track for its filter; ours meets silence.
EDGE = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sounds")

    @cache
    def make(kind: str) -> Path:
        (folder / kind).mkdir()
        return make_sound(kind, folder / kind)

    return make


def whole_sound(path: Path, hz: int = HZ, num_channels: int = 1) -> torch.Tensor:
    with SoundReader(path, hz, num_channels) as reader:
        sound = reader.read(0.0, SECONDS)
    assert sound is not None
    return sound


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_track_is_that_of_ffmpeg(kind: str, made):
    expected = reference_sound(made(kind), HZ)[: round(SECONDS * HZ)]
    sound = whole_sound(made(kind)).numpy()[: len(expected)]
    assert np.abs(expected).max() > 0.1
    num = len(expected) - EDGE
    # Windows Media starts at a broken number of samples, which ours rounds.
    tolerance = {"ac3_mkv": 2e-3, "wma_asf": 0.06}.get(kind, 2e-5)
    np.testing.assert_allclose(sound[EDGE:num], expected[EDGE:num], atol=tolerance)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNEVEN])
def test_an_interval_is_the_same_part_of_the_whole(kind: str, made):
    whole = whole_sound(made(kind))
    with SoundReader(made(kind), HZ) as reader:
        for start in STARTS_SECONDS:
            sound = reader.read(start, start + 0.7)
            assert sound is not None
            first = round(start * HZ)
            torch.testing.assert_close(
                sound,
                whole[first : first + len(sound)],
                atol=KINDS[kind][2],
                rtol=0,
                msg=lambda m, s=start: f"{s}: {m}",
            )


@pytest.mark.parametrize("kind", ["aac_mp4", "opus_mkv", "mp3_avi", "mp2_mpg", "wma_asf", *UNEVEN])
def test_an_interval_is_found_where_ffmpeg_has_it(kind: str, made):
    expected = reference_sound(made(kind), HZ)
    with SoundReader(made(kind), HZ) as reader:
        for start in STARTS_SECONDS[:-1]:
            sound = reader.read(start, start + 0.5)
            assert sound is not None
            shift, apart = best_shift(sound.numpy(), expected, round(start * HZ), 200)
            assert abs(shift) <= (2 if kind in UNEVEN else 0)
            assert apart < (0.05 if kind in UNEVEN else 2e-3)


@pytest.mark.parametrize("hz", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("kind", ["aac_44k", "aac_8k_mono", "flac_32k", "pcm_24_mov"])
def test_every_rate_is_that_of_ffmpeg(kind: str, hz: int, made):
    expected = reference_sound(made(kind), hz)
    with SoundReader(made(kind), hz) as reader:
        for start in (2.4, 0.0):
            sound = reader.read(start, start + 1.0)
            assert sound is not None
            part = expected[round(start * hz) :][: len(sound)]
            np.testing.assert_allclose(sound[6 * EDGE :], part[6 * EDGE :], atol=1e-4)


@pytest.mark.parametrize("kind", ["aac_mp4", "aac_surround", "ac3_mkv", "pcm_mov", "pcm_surround", "flac_32k"])
def test_stereo_is_mixed_as_ffmpeg_does(kind: str, made):
    output, _ = ffmpeg("-i", made(kind), "-map", "0:a:0", "-ac", "2", "-ar", str(HZ), "-f", "f32le", "-")
    expected = np.frombuffer(output, np.float32).reshape(-1, 2).T[:, : round(SECONDS * HZ)]
    sound = whole_sound(made(kind), num_channels=2).numpy()
    assert sound.shape == (2, round(SECONDS * HZ))
    num = expected.shape[1] - EDGE
    tolerance = 2e-3 if kind == "ac3_mkv" else 2e-5
    np.testing.assert_allclose(sound[:, EDGE:num], expected[:, EDGE:num], atol=tolerance)
