from dataclasses import replace

import pytest
import torch

from tests.tools.ablation.test_candidates import batch_of
from tests.tools.ablation.untrained import NUM_FRAMES, lively
from tests.worldmodel.tiny import MODEL, random_codes, tiny_quantizer
from tools.ablation.candidates import build


def test_the_loss_is_that_of_the_world_model_without_heads():
    candidate = lively("coarse-to-fine")
    codes = random_codes(2, NUM_FRAMES, candidate.model.num_codes)
    batch = batch_of(codes)
    with torch.no_grad():
        torch.testing.assert_close(candidate(batch)[0], candidate.world(batch)[0])


@pytest.mark.parametrize(("name", "expected"), [("coarse-to-fine", 2), ("raster", 2), ("one-stack", None)])
def test_a_step_decodes_a_few_frames_where_the_structure_allows_it(name: str, expected: int | None):
    candidate = build(name, replace(MODEL, decoded_frames=2), tiny_quantizer(), seed=0).train()
    drawn = candidate.drawn_frames(random_codes(1, NUM_FRAMES, candidate.model.num_codes))
    assert (None if drawn is None else len(drawn)) == expected


def test_muon_is_given_the_matrices_of_all_blocks():
    for name, num_blocks in (("coarse-to-fine", 4), ("one-stack", 4), ("factorised", 4)):
        candidate = lively(name)
        assert len(candidate.hidden_matrices()) == 5 * num_blocks
        own = {id(parameter) for parameter in candidate.parameters()}
        assert {id(matrix) for matrix in candidate.hidden_matrices()} <= own
