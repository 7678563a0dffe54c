import numpy as np
import pytest
import torch

from worldmodel.cache.code_statistics import CodeStatistics, StillStatistics
from worldmodel.layout import Pyramid, Scale

PYRAMID = Pyramid((Scale(1, 1, 4), Scale(2, 2, 8)))


def test_changes_and_perplexity_are_counted_by_scale():
    codes = np.zeros((2, 3, 5), np.uint16)
    codes[0, 1, 0] = 3  # there and back: two changes of the coarse code in four pairs of frames
    codes[1, 2, 1:3] = 5  # two changes of sixteen fine ones
    statistics = CodeStatistics(PYRAMID)
    statistics.add(codes[:1])
    statistics.add(codes[1:])
    coarse, fine = statistics.summary()
    assert (coarse["used"], fine["used"]) == (2, 2)
    assert coarse["changed"] == 0.5
    assert fine["changed"] == 2 / 16
    assert coarse["perplexity"] == pytest.approx(2 ** coarse["entropy_bits"], rel=1e-2)
    assert coarse["entropy_bits"] == pytest.approx(-(5 / 6 * np.log2(5 / 6) + 1 / 6 * np.log2(1 / 6)), abs=1e-3)


def test_codes_of_which_all_occur_alike_have_the_vocabulary_as_perplexity():
    statistics = CodeStatistics(Pyramid((Scale(1, 1, 8),)))
    statistics.add(np.arange(8, dtype=np.uint16).reshape(1, 8, 1))
    assert statistics.summary()[0]["perplexity"] == 8
    assert statistics.summary()[0]["changed"] == 1


def test_only_changes_where_the_picture_stands_still_count_as_flicker():
    frames = torch.full((1, 3, 3, 8, 8), 100, dtype=torch.uint8)
    frames[0, 1, :, :4, :4] = 200  # top left moves, and moves back
    frames[0, 1, :, 4:, 4:] = 101  # bottom right: one grey level, still
    codes = np.zeros((1, 3, 5), np.uint16)
    codes[0, 1] = 1  # every code changes and changes back
    codes[0, 2, 4] = 1  # but the last keeps its change
    still = StillStatistics(PYRAMID)
    still.add(codes, frames)
    assert still.summary() == {"num_still": 6, "num_changed": 5, "changed": round(5 / 6, 4)}


def test_every_plane_of_the_finest_scale_stands_still_where_the_picture_does():
    frames = torch.full((1, 2, 3, 8, 8), 100, dtype=torch.uint8)
    frames[0, 1, :, :4] = 200  # the upper half moves
    pyramid = Pyramid((Scale(1, 1, 4), Scale(2, 2, 8, planes=3)))
    codes = np.zeros((1, 2, 13), np.uint16)
    codes[0, 1, 1 + 4 + 2] = 1  # second plane, lower left: still, and changes
    codes[0, 1, 1 + 8 + 1] = 1  # third plane, upper right: moves
    still = StillStatistics(pyramid)
    still.add(codes, frames)
    assert still.summary() == {"num_still": 6, "num_changed": 1, "changed": round(1 / 6, 4)}
    statistics = CodeStatistics(pyramid)
    statistics.add(codes)
    assert [(row["planes"], row["changed"]) for row in statistics.summary()] == [(1, 0.0), (3, round(2 / 12, 4))]


def test_a_film_in_which_nothing_stands_still_has_no_share():
    frames = torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)
    frames[:, 1] = 255
    still = StillStatistics(PYRAMID)
    still.add(np.zeros((1, 2, 5), np.uint16), frames)
    assert still.summary() == {"num_still": 0, "num_changed": 0, "changed": None}


def test_codes_of_the_whole_frame_stand_still_where_no_patch_of_it_moves():
    frames = torch.full((1, 3, 3, 32, 32), 100, dtype=torch.uint8)
    frames[0, 1:, :, 4:8, 4:8] = 200  # something small comes, of little weight in the mean of the frame
    codes = np.zeros((1, 3, 5), np.uint16)
    codes[0, 1] = 1
    codes[0, 2] = [1, 1, 1, 2, 1]
    still = StillStatistics(Pyramid((Scale(1, 1, 4, whole_frame=True), Scale(1, 4, 8, whole_frame=True))))
    still.add(codes, frames)
    assert still.summary() == {"num_still": 4, "num_changed": 1, "changed": 0.25}
