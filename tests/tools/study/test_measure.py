import numpy as np
import pytest

from streams.clip import to_float, to_uint8
from streams.videos import VideoSource
from tests.worldmodel.whole_run import WholeRun
from tools.study.measure import measure_codec
from worldmodel.cache.latents import LatentCache
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.world import heldout_videos
from worldmodel.run import load_run
from worldmodel.settings import EvaluateSettings


def test_the_codec_is_measured_on_whole_clips_of_the_held_out_videos(whole_run: WholeRun):
    run, cache = load_run(whole_run.world), LatentCache(whole_run.cache)
    settings = EvaluateSettings(str(whole_run.world), context_frames=3, horizon=5, num_clips=2)
    found, num_clips = measure_codec(run, cache, settings)
    source: VideoSource = heldout_videos(run, cache, 8)
    assert num_clips == 2
    batch = source.collate([source.read(index, np.random.default_rng(0)) for index in (0, len(source) - 1)])
    codes = run.picture.encode(to_float(batch.frames))
    means = psnr(to_uint8(run.picture.decode(codes)), batch.frames).mean(1)
    assert found["psnr"]["mean"] == pytest.approx(means.mean())
    finest = codes[..., run.picture.pyramid.slices[-1]]
    assert found["scales"][-1]["changed"] == pytest.approx(
        float((finest[:, 1:] != finest[:, :-1]).float().mean()), abs=1e-4
    )
    assert found["bits_per_frame"]["alone"] > 0
