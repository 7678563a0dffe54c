from itertools import islice

import torch

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import MODEL, random_codes
from tools.ablation.measure import SAMPLINGS
from tools.ablation.one_stack import OneStack


def test_a_prompt_may_be_a_single_frame_and_the_cache_slides():
    candidate = lively("one-stack")
    prompt = random_codes(2, 1, candidate.model.num_codes)
    frames = candidate.roll_out(prompt, SAMPLINGS["likeliest"], torch.Generator().manual_seed(0))
    codes = torch.cat((prompt, torch.stack(list(islice(frames, 3 * MODEL.window_frames)), 1)), 1)
    assert candidate.predict(codes).right.all()


@torch.no_grad()
def test_scales_of_earlier_frames_are_seen_too():
    """What tells one stack from a trunk and a decoder: all tokens of the past, at every depth."""
    candidate = lively("one-stack")
    assert isinstance(candidate, OneStack)
    sight = candidate._sight(4)
    per_frame = sum(candidate.units)
    assert sight.num_queries == 4 * per_frame
    assert sight.stops[0] == candidate.units[0]
    assert sight.starts[-1] == (4 - MODEL.window_frames) * per_frame
    assert sight.stops[-1] == 4 * per_frame
