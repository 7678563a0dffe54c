from itertools import pairwise

import pytest
import torch

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import random_codes
from tools.ablation.measure import SAMPLINGS, Movement
from worldmodel.settings import EvaluateSettings


def test_movement_is_the_share_of_codes_that_differ_from_the_frame_before():
    candidate = lively("coarse-to-fine")
    settings = EvaluateSettings(run="", horizon=3, sampling=SAMPLINGS["drawn"])
    moves, prompt = Movement(candidate), random_codes(2, 4, candidate.model.num_codes)
    codes = moves.imagine(None, prompt, torch.zeros(2, dtype=torch.bool), settings, torch.Generator().manual_seed(0))
    frames = torch.cat((prompt[:, -1:], codes), 1).unbind(1)
    expected = [float((after != before).float().mean()) for before, after in pairwise(frames)]
    assert moves.share_changed() == pytest.approx(sum(expected) / len(expected))
    assert 0 < moves.share_changed() < 1
