import numpy as np
import pytest
import torch
from torch import Tensor

from streams.settings import ClipSettings
from worldmodel.evaluation.codec_sounds import measure_onsets, measure_sound, mels_to_show
from worldmodel.layout import Pyramid, Scale

CPU, HZ = torch.device("cpu"), 8000


class Samples:
    """Every sample as a code of 8 bits."""

    kind = "sound"
    pyramid = Pyramid((Scale(1, 800, 256),))
    clips = ClipSettings(sample_hz=HZ)

    def encode(self, sound: Tensor) -> Tensor:
        return ((sound + 1) * 127.5).round().long()

    def decode(self, codes: Tensor) -> Tensor:
        return codes / 127.5 - 1


def knocks(loudness: float = 0.8) -> Tensor:
    """Three clips of a second, silent but for a knock in the middle of the fourth frame and one in the eighth."""
    sound = torch.zeros(3, HZ)
    for start in (2800, 6000):
        sound[:, start : start + 400] = loudness * torch.sin(torch.arange(400) * 0.7)
    return sound.view(3, 10, 800)


def test_a_codec_that_keeps_the_sound_keeps_its_onsets():
    measures, coded = measure_sound(Samples(), knocks(), ["a", "b", "c"], CPU, 0)
    assert measures["onsets"] == {
        "num_truth": 6,
        "num_missed": 0,
        "num_extra": 0,
        "median_error_ms": 0.0,
        "error_ms_95": 0.0,
    }
    assert 0 <= measures["log_spectral_distance_db"]["mean"] < 3
    assert measures["tokens_per_frame"] == 800
    assert (coded.decoded - knocks()).abs().max() < 1 / 127


def test_late_missed_and_extra_onsets_are_counted():
    truth = knocks().flatten(1)
    late = truth.roll(80, 1)  # 10 ms
    late[1, :4000] = 0
    late[2, 400:800] = 0.8 * torch.sin(torch.arange(400) * 0.7)
    found = measure_onsets(late, truth, HZ)
    assert (found["num_truth"], found["num_missed"], found["num_extra"]) == (6, 1, 1)
    assert found["median_error_ms"] == pytest.approx(10.0)
    assert found["error_ms_95"] == pytest.approx(10.0)


def test_where_nothing_is_matched_there_is_no_error():
    found = measure_onsets(torch.zeros(3, HZ), knocks().flatten(1), HZ)
    assert (found["num_missed"], found["median_error_ms"], found["error_ms_95"]) == (6, None, None)


def test_the_liveliest_clips_are_shown_one_of_a_video():
    sound = torch.stack([knocks(loudness)[0] for loudness in (0.2, 0.9, 0.8, 0.4, 0.3)])
    sound[4] = 0.9 * torch.sin(torch.arange(8000) * 0.7).view(10, 800)  # loud, but the same all the time
    videos = ["a", "b", "b", "c", "d"]
    coded = measure_sound(Samples(), sound, videos, CPU, 0)[1]
    rows = mels_to_show({"samples": coded}, sound, videos, HZ)
    assert rows.keys() == {"truth", "samples"}
    assert [row.shape for row in rows["truth"]] == [(32, 80)] * 3
    loudest = [float(np.exp(row.max())) for row in rows["truth"]]
    assert np.array(loudest) / loudest[1] == pytest.approx(np.array([0.2, 0.9, 0.4]) / 0.9, rel=0.01)
    np.testing.assert_allclose(rows["samples"][1].max(), rows["truth"][1].max(), atol=0.1)
