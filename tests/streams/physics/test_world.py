from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.physics.world import VERSION, make_clip, paths_of, write_clip
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import read_sound
from streams.settings import PhysicsSettings

SETTINGS = PhysicsSettings(seconds=1.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for seed in range(3):
        assert write_clip(folder, SETTINGS, seed)
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_the_video_shows_and_sounds_what_was_rendered(folder: Path, seed: int):
    clip = make_clip(SETTINGS, seed)
    path, _ = paths_of(folder, seed)
    with PyAVReader(path) as reader:
        np.testing.assert_allclose(reader.seconds, np.arange(20) / 20.0)
        frames = reader.frames_at(range(20)).numpy()
    assert np.abs(frames.astype(int) - clip.frames).mean() < 6.0
    sound = read_sound(path, 0.0, 1.0, SETTINGS.sample_hz)
    assert sound is not None
    assert np.corrcoef(sound.numpy(), clip.sound)[0, 1] > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_the_truth_beside_it_is_complete_and_needs_no_pickle(folder: Path, seed: int):
    clip = make_clip(SETTINGS, seed)
    with np.load(paths_of(folder, seed)[1], allow_pickle=False) as truth:
        assert set(truth.files) == {"states", "radii", "colours", "impacts", "flow", "settings"}
        assert truth["states"].shape == (20, len(clip.motion.radii), 4)
        assert truth["flow"].shape == (20, 2, 64, 64)
        assert truth["flow"].dtype == np.float16
        np.testing.assert_array_equal(truth["impacts"], clip.motion.impacts)
        np.testing.assert_array_equal(truth["flow"], clip.flow)


def test_a_seed_is_a_clip_and_its_look_is_drawn_apart():
    one, again, other = make_clip(SETTINGS, 1), make_clip(SETTINGS, 1), make_clip(replace(SETTINGS, look=1), 1)
    np.testing.assert_array_equal(one.frames, again.frames)
    np.testing.assert_array_equal(one.sound, again.sound)
    assert one.encoder == again.encoder
    np.testing.assert_array_equal(one.motion.states, other.motion.states)
    np.testing.assert_array_equal(one.flow, other.flow)
    assert not np.array_equal(one.look.colours, other.look.colours)


def test_the_encoder_varies_with_the_seed():
    assert len({make_clip(SETTINGS, seed).encoder for seed in range(6)}) > 3


def test_complete_clips_are_kept(folder: Path):
    before = paths_of(folder, 0)[0].stat().st_mtime_ns
    assert not write_clip(folder, SETTINGS, 0)
    assert paths_of(folder, 0)[0].stat().st_mtime_ns == before


def test_clips_of_other_settings_or_versions_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_clip(tmp_path, SETTINGS, 0)
    assert write_clip(tmp_path, replace(SETTINGS, look=1), 0)
    monkeypatch.setattr("streams.physics.world.VERSION", VERSION + 1)
    assert write_clip(tmp_path, replace(SETTINGS, look=1), 0)


def test_a_clip_interrupted_before_its_video_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    write_clip(tmp_path, SETTINGS, 0)
    with monkeypatch.context() as patch:
        patch.setattr("streams.pyav.writer.write_video", stop)
        with pytest.raises(KeyboardInterrupt):
            write_clip(tmp_path, replace(SETTINGS, look=1), 0)
    # The truth is new, and the old video is gone: nothing that is there disagrees.
    assert [path.name for path in tmp_path.iterdir()] == ["physics_0000000.truth.npz"]
    assert write_clip(tmp_path, replace(SETTINGS, look=1), 0)


def test_the_flow_is_that_of_the_frames(folder: Path):
    from streams.geometry import warp

    clip = make_clip(SETTINGS, 0)
    frames = torch.from_numpy(clip.frames.astype(np.float32))
    flow = torch.from_numpy(clip.flow.astype(np.float32))
    warped = warp(frames[1:], flow[:-1])
    inside = (flow[:-1] != 0).any(dim=1, keepdim=True).expand_as(warped)
    away = (warped - frames[:-1]).abs()[inside].mean()
    still = (frames[1:] - frames[:-1]).abs()[inside].mean()
    assert away < 0.3 * still
