import numpy as np
import pytest
import torch

from worldmodel.evaluation.codec_measures import Coded, mean_over_videos, measure_codes, through
from worldmodel.evaluation.entropy import encode_plane
from worldmodel.layout import Pyramid, Scale

PYRAMID = Pyramid((Scale(1, 1, 4), Scale(2, 2, 8)))


def test_all_clips_go_through_in_order_and_speed_is_that_of_the_median_batch(monkeypatch: pytest.MonkeyPatch):
    # Batches of 8, 8 and 4 clips of 3 frames; encoding takes half a second, decoding a second, and the last one ages.
    ticks = iter([0.0, 0.5, 1.5, 2.0, 2.5, 3.5, 4.0, 90.0, 900.0])
    monkeypatch.setattr("worldmodel.evaluation.codec_measures._now", lambda _: next(ticks))
    clips = torch.arange(20 * 3).view(20, 3, 1).float()
    coded = through(clips, lambda part: part.long() * 2, lambda codes: codes / 2, torch.device("cpu"))
    np.testing.assert_array_equal(coded.codes, clips.numpy() * 2)
    torch.testing.assert_close(coded.decoded, clips)
    assert (coded.encoded_per_second, coded.decoded_per_second) == (48, 24)


def test_bits_tokens_and_use_are_those_of_the_codes():
    generator = np.random.default_rng(0)
    codes = np.concatenate([generator.integers(0, 2, (3, 4, 1)), generator.integers(0, 8, (3, 4, 4))], 2)
    measures = measure_codes(PYRAMID, Coded(codes, torch.zeros(0), 1.0, 2.0))
    assert measures["tokens_per_frame"] == 5
    for model in ("alone", "in_time"):
        words = len(encode_plane(codes[..., :1], 4, model)) + len(encode_plane(codes[..., 1:], 8, model))
        assert measures["bits_per_frame"][model] == 32 * words / 12
    coarse, fine = measures["scales"]
    assert (coarse["used"], coarse["usage"], coarse["grid"]) == (2, 0.5, [1, 1])
    assert 1 < coarse["perplexity"] <= 2
    assert fine["usage"] == 1.0
    assert measures["decoded_frames_per_second"] == 2.0


def test_a_mean_resamples_videos_and_not_the_clips_of_one():
    values = np.array([1.0, 1.0, 1.0, 3.0])
    found = mean_over_videos(values, ["a", "a", "a", "b"], 0)
    assert found == {"mean": 2.0, "low": 1.0, "high": 3.0}
    alone = mean_over_videos(np.arange(50.0), ["a"] * 50, 0)
    assert alone["mean"] == 24.5
    assert alone["low"] < 24.5 < alone["high"]
