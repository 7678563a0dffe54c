from pathlib import Path

import numpy as np
import pytest

from streams.errors import MediaError
from streams.pyav.facts import measure, peak_of, small_frame
from streams.pyav.index import index_frames
from tests.streams.ffmpeg import NUM_FRAMES, X264, ffmpeg, make_video, reference

TONE = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=2")
FILM = ("-f", "lavfi", "-i", "testsrc=size=96x64:rate=25:duration=2")


@pytest.mark.parametrize("kind", ["constant", "long_gop", "open_gop", "variable_rate", "transport", "mpeg4_avi", "vp9"])
def test_the_frames_that_decode_are_those_of_ffmpeg(kind: str, tmp_path: Path):
    path = make_video(kind, tmp_path)
    pictures, sound, _ = measure(path, 10.0)
    _, seconds = reference(path, 64, 96)
    index = index_frames(path)
    found = np.array(pictures.ticks) * float(index.tick_seconds) - float(index.start_seconds)
    np.testing.assert_allclose(found, seconds, atol=1.1e-3)
    assert (pictures.damage, sound, list(pictures.sizes)) == ("", None, [(64, 96)])


def test_hidden_packets_are_counted_and_not_shown(tmp_path: Path):
    pictures, _, _ = measure(make_video("edit_list", tmp_path), 10.0)
    assert pictures.num_hidden > 0
    assert len(pictures.ticks) + pictures.num_hidden == NUM_FRAMES


def test_damage_ends_the_count_and_is_named(tmp_path: Path):
    path = make_video("matroska", tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(content)
    pictures, _, _ = measure(path, 10.0)
    assert pictures.damage
    assert 0 < len(pictures.ticks) < NUM_FRAMES


def test_the_header_is_read(tmp_path: Path):
    ffmpeg(*FILM, *X264, "-vf", "setsar=4/3", tmp_path / "plain.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "plain.mp4", "-c", "copy", tmp_path / "a.mp4")
    pictures, _, seconds = measure(tmp_path / "a.mp4", 10.0)
    assert (pictures.num_listed, pictures.nominal_rate, pictures.rotation) == (50, 25.0, 90)
    assert pictures.sample_aspect_ratio == pytest.approx(4 / 3)
    assert (pictures.pixel_format, seconds) == ("yuv420p", 2.0)


def test_scene_cuts_are_where_the_scenes_were_joined(tmp_path: Path):
    scenes = "color=c=red:size=96x64:rate=25:duration=1[a];testsrc=size=96x64:rate=25:duration=1[b];[a][b]concat"
    ffmpeg("-filter_complex", scenes, *X264, tmp_path / "a.mkv")
    pictures, _, _ = measure(tmp_path / "a.mkv", 10.0)
    assert pictures.cuts == [1000]
    assert measure(tmp_path / "a.mkv", 100.0)[0].cuts == []


def test_sound_that_starts_late_is_told(tmp_path: Path):
    ffmpeg(*FILM, "-itsoffset", "0.7", *TONE, *X264, "-c:a", "pcm_s16le", tmp_path / "a.mkv")
    _, sound, _ = measure(tmp_path / "a.mkv", 10.0)
    assert sound is not None
    assert sound.start_seconds == pytest.approx(0.7, abs=1e-3)
    assert sound.seconds == pytest.approx(2.0, abs=1e-3)
    assert (sound.codec, sound.sample_hz, sound.num_channels, sound.gaps) == ("pcm_s16le", 16000, 1, [])
    assert sound.drift_seconds == pytest.approx(0.0, abs=1.1e-3)
    assert sound.peak == pytest.approx(1 / 8, rel=0.01)  # of FFmpeg's sine


@pytest.mark.parametrize("percent", [1, -1])
def test_sound_whose_times_run_faster_than_its_samples_drifts(tmp_path: Path, percent: int):
    # Times that are stretched and samples that are not: as a recorder with a wrong clock writes.
    stretched = f"setts=pts=PTS*{100 + percent}/100:dts=DTS*{100 + percent}/100"
    ffmpeg(*TONE, "-c:a", "pcm_s16le", tmp_path / "tone.mka")
    ffmpeg(*FILM, "-i", tmp_path / "tone.mka", *X264, "-c:a", "copy", "-bsf:a", stretched, tmp_path / "a.mkv")
    _, sound, _ = measure(tmp_path / "a.mkv", 10.0)
    assert sound is not None
    # Up to the start of the last block.
    assert sound.drift_seconds == pytest.approx(2 * percent / 100, abs=3e-3)
    assert (sound.gaps, sound.seconds) == ([], pytest.approx(2.0, abs=1e-3))


def test_a_gap_in_the_sound_is_no_drift(tmp_path: Path):
    jump = "setts=pts=PTS+gte(PTS\\,1000)*500:dts=DTS+gte(DTS\\,1000)*500"
    ffmpeg(*TONE, "-c:a", "pcm_s16le", tmp_path / "tone.mka")
    ffmpeg(*FILM, "-i", tmp_path / "tone.mka", *X264, "-c:a", "copy", "-bsf:a", jump, tmp_path / "a.mkv")
    _, sound, _ = measure(tmp_path / "a.mkv", 10.0)
    assert sound is not None
    assert sound.gaps == [pytest.approx(0.5, abs=2e-3)]
    assert sound.drift_seconds == pytest.approx(0.0, abs=1.1e-3)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_the_peak_is_the_same_whatever_the_samples_are(tmp_path: Path, codec: str):
    ffmpeg(*FILM, *TONE, *X264, "-af", "volume=6", "-c:a", codec, tmp_path / "a.mov")
    _, sound, _ = measure(tmp_path / "a.mov", 10.0)
    assert sound is not None
    assert sound.peak == pytest.approx(0.75, abs=0.01)


def test_full_scale_is_one():
    assert peak_of(np.array([[-128, 0]], np.int8)) == 1.0
    assert peak_of(np.array([[128, 255]], np.uint8)) == 127 / 128
    assert peak_of(np.array([[-0.5, 0.25]], np.float32)) == 0.5


def test_a_small_frame_is_upright_and_right_in_its_aspect(tmp_path: Path):
    scenes = "color=c=red:size=96x64:rate=25:duration=1[a];color=c=blue:size=96x64:rate=25:duration=1[b];[a][b]concat"
    ffmpeg("-filter_complex", scenes, *X264, "-g", "5", tmp_path / "plain.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "plain.mp4", "-c", "copy", tmp_path / "a.mp4")
    early, late = small_frame(tmp_path / "a.mp4", 0.0, 48), small_frame(tmp_path / "a.mp4", 0.8, 48)
    assert early.shape == (48, 32, 3)
    assert early.mean(axis=(0, 1)).argmax() == 0
    assert late.mean(axis=(0, 1)).argmax() == 2


def test_a_small_frame_of_no_video_is_a_media_error(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(MediaError, match="cannot be decoded"):
        small_frame(tmp_path / "a.mp4", 0.5, 32)
