import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.addresses import find_videos
from streams.errors import MediaError
from streams.videos import VideoSource
from tests.worldmodel.whole_run import WholeRun
from worldmodel.evaluation.horizons import ROLLOUT, measure_horizons
from worldmodel.evaluation.reading import spread_clips
from worldmodel.run import load_run
from worldmodel.settings import EvaluateSettings


def with_damage(whole_run: WholeRun, folder: Path, num_damaged: int) -> VideoSource:
    """The videos of a run, some of which lose their pictures after they were listed."""
    shutil.copytree(whole_run.videos, folder)
    run = load_run(whole_run.world)
    source = VideoSource(find_videos(folder), replace(run.picture.clips, num_frames=12))
    for path in sorted(folder.glob("*.mp4"))[:num_damaged]:
        data = bytearray(path.read_bytes())
        start = data.index(b"mdat") + 4
        data[start : start + 20_000] = bytes(len(data[start : start + 20_000]))
        path.write_bytes(data)
    return source


def test_clips_are_spread_evenly_and_those_that_cannot_be_read_are_said(whole_run: WholeRun, tmp_path: Path):
    source, left_out = with_damage(whole_run, tmp_path / "videos", 1), []
    clips = list(spread_clips(source, 100, left_out))
    damaged = min(path.name for path in (tmp_path / "videos").glob("*.mp4"))
    assert left_out
    assert all(line.startswith("left out: ") and damaged in line for line in left_out)
    assert len(clips) + len(left_out) == len(source)
    whole = list(spread_clips(with_damage(whole_run, tmp_path / "others", 0), 4, []))
    expected = np.linspace(0, len(source) - 1, 4).astype(int)
    read = [with_damage(whole_run, tmp_path / f"{i}", 0).read(int(i), np.random.default_rng(0)) for i in expected[:2]]
    for clip, other in zip(whole, read, strict=False):
        assert torch.equal(clip.frames, other.frames)


def test_it_is_an_error_if_none_can_be_read(whole_run: WholeRun, tmp_path: Path):
    source = with_damage(whole_run, tmp_path / "videos", 100)
    with pytest.raises(MediaError, match=r"none of 3 clips can be read; first reason: left out: "):
        list(spread_clips(source, 3, []))


def test_rollouts_are_measured_on_the_clips_that_can_be_read(whole_run: WholeRun, tmp_path: Path):
    source = with_damage(whole_run, tmp_path / "videos", 1)
    settings = EvaluateSettings(str(whole_run.world), context_frames=4, horizon=8, num_clips=100)
    found = measure_horizons(load_run(whole_run.world), source, settings, torch.device("cpu"))
    assert found.left_out
    assert found.psnr[ROLLOUT].shape == (len(source) - len(found.left_out), 8)
