from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.videos import VideoSource
from tests.worldmodel.whole_run import WholeRun
from worldmodel.cache.latents import LatentCache
from worldmodel.evaluation.horizons import (
    CODEC,
    COPY,
    ROLLOUT,
    Horizons,
    divergence,
    imagine_codes,
    measure_horizons,
    show,
)
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.world import heldout_videos
from worldmodel.run import LoadedRun, load_run
from worldmodel.settings import EvaluateSettings, SamplingSettings


@pytest.fixture(scope="module")
def run(whole_run: WholeRun) -> LoadedRun:
    return load_run(whole_run.world)


@pytest.fixture
def source(run: LoadedRun, whole_run: WholeRun) -> VideoSource:
    return heldout_videos(run, LatentCache(whole_run.cache), 7)


def settings_of(whole_run: WholeRun, **changes: object) -> EvaluateSettings:
    greedy = SamplingSettings(temperature=[0.0])
    return replace(EvaluateSettings(str(whole_run.world)), context_frames=4, horizon=3, sampling=greedy, **changes)


def test_imagined_codes_are_those_after_the_prompt(run: LoadedRun, source: VideoSource, whole_run: WholeRun):
    batch = source.collate([source.read(index, np.random.default_rng(0)) for index in range(2)])
    prompt = torch.cat((run.picture.encode(batch.frames / 127.5 - 1), run.sound.encode(batch.sound)), 2)[:, :4]  # type: ignore[union-attr]
    settings = settings_of(whole_run)
    codes = imagine_codes(run, prompt, batch.has_sound, settings, torch.Generator())
    assert codes.shape == (2, 3, run.model.num_codes)
    assert torch.equal(codes, imagine_codes(run, prompt, batch.has_sound, settings, torch.Generator().manual_seed(5)))
    assert show(run, codes).shape == (2, 3, 3, 16, 16)


def test_every_horizon_is_compared_with_the_true_frame_there(run: LoadedRun, source: VideoSource, whole_run: WholeRun):
    found = measure_horizons(run, source, settings_of(whole_run, num_clips=2), torch.device("cpu"))
    clip = source.read(0, np.random.default_rng(0)).frames
    copied = [psnr(clip[3], clip[4 + horizon]) for horizon in range(3)]
    np.testing.assert_allclose(found.psnr[COPY][0], np.minimum(copied, 60.0))
    assert {name: values.shape for name, values in found.psnr.items()} == dict.fromkeys((ROLLOUT, COPY, CODEC), (2, 3))
    assert {name: values.shape for name, values in found.divergence.items()} == dict.fromkeys((ROLLOUT, COPY), (3,))
    assert all(0 <= value <= 1 for values in found.divergence.values() for value in values)


def test_divergence_is_told_frame_by_frame():
    truth = np.zeros((4, 2, 3), int)
    codes = truth.copy()
    codes[:, 1] = 7
    np.testing.assert_allclose(divergence(codes, truth, (slice(0, 3),)), [0.0, 1.0], atol=1e-12)


def test_the_file_has_a_line_of_means_for_each_horizon(tmp_path: Path):
    horizons = Horizons({ROLLOUT: np.array([[30.0, 20.0], [32.0, 24.0]])}, {COPY: np.array([0.25, 0.5])})
    horizons.write(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        f"horizon,PSNR of {ROLLOUT} (dB),code divergence of {COPY} (bits)",
        "1,31.0000,0.2500",
        "2,22.0000,0.5000",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert horizons.drift_lines([2])[1].split() == [*COPY.split(), "0.500"]
