"""One suite for all that compete; `candidate` and `untrained` with it."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor

from tests.tools.ablation.test_code_by_code import columns_of
from tests.tools.ablation.untrained import NUM_FRAMES, lively
from tests.worldmodel.tiny import MODEL, PICTURE, random_codes, tiny_quantizer
from tools.ablation.candidate import Candidate
from tools.ablation.candidates import CANDIDATES, build
from tools.ablation.code_by_code import CodeByCode
from tools.ablation.measure import SAMPLINGS
from worldmodel.cache.latents import CodeBatch
from worldmodel.errors import SettingsError

GREEDY = SAMPLINGS["likeliest"]
LEARNERS = ("one-stack", "raster", "confidence", "masked", "factorised", "no-copy", "motion-copy")
# Of the orders of places that are fixed there is one here; tests/tools/ablation/test_code_by_code.py has them all.
COMPARED = [name for name in CANDIDATES if name not in ("spiral", "quadtree", "random-order")]
# The rounds of the other are drawn anew with every prediction, so single codes are not comparable.
STEADY = [name for name in COMPARED if name != "masked"]


def some_codes(candidate: Candidate, num_clips: int = 2) -> Tensor:
    return random_codes(num_clips, NUM_FRAMES, candidate.model.num_codes)


def batch_of(codes: Tensor) -> CodeBatch:
    none = torch.zeros(*codes.shape[:2], 0, dtype=torch.long)
    silent = torch.zeros(len(codes), dtype=torch.bool)
    thumbnails = torch.zeros(*codes.shape[:2], 3, 1, 1, dtype=torch.uint8)
    return CodeBatch(codes, codes, codes[:, ::2], none, silent, thumbnails)


@pytest.mark.parametrize("name", COMPARED)
def test_no_frame_knows_what_comes_later(name: str):
    candidate = lively(name)
    codes = some_codes(candidate)
    other = codes.clone()
    other[:, 7:] = random_codes(2, NUM_FRAMES, codes.shape[2])[:, 7:].flip(0)
    torch.manual_seed(1)
    before = candidate.predict(codes).nats[:, :6]
    torch.manual_seed(1)
    torch.testing.assert_close(candidate.predict(other).nats[:, :6], before)


@pytest.mark.parametrize("name", COMPARED)
def test_every_frame_knows_the_last_one_and_none_before_the_window(name: str):
    candidate, frame = lively(name), NUM_FRAMES - 2
    codes = some_codes(candidate, 1)

    def told(changed: int) -> Tensor:
        other = codes.clone()
        other[:, changed] = (other[:, changed] + 1) % PICTURE.quantizer.vocabulary
        torch.manual_seed(1)
        return candidate.predict(other).nats[0, frame]

    torch.manual_seed(1)
    now = candidate.predict(codes).nats[0, frame]
    assert not torch.allclose(told(frame), now)
    # Every block looks back by a window, and the embedding by a frame more.
    depth = len(candidate.model.trunk.blocks)
    furthest = frame - depth * (MODEL.window_frames - 1) - 2
    if furthest >= 0:
        torch.testing.assert_close(told(furthest), now)


@pytest.mark.parametrize("name", STEADY)
def test_what_a_rollout_draws_is_what_the_prediction_calls_likeliest(name: str):
    candidate = lively(name)
    prompt = some_codes(candidate)[:, :5]
    frames = candidate.roll_out(prompt, GREEDY, torch.Generator().manual_seed(0))
    codes = torch.cat((prompt, torch.stack(list(islice(frames, 6)), 1)), 1)
    # Given the codes of the rollout itself, each is the most likely one.
    assert candidate.predict(codes).right[:, 4:].all()
    assert (codes[:, 5:] != codes[:, 4:-1]).any(-1).float().mean() > 0.5  # nothing is proved by a frozen one


@pytest.mark.parametrize("name", STEADY)
def test_bits_are_those_of_a_distribution(name: str):
    """Whatever the code that is decoded last, those before it cost the same, and its own probabilities add up to 1."""
    candidate = lively(name)
    codes = some_codes(candidate, 1)[:, :3]
    vocabulary, column = PICTURE.quantizer.vocabulary, last_column(candidate, codes)
    variants = codes.repeat(vocabulary, 1, 1)
    variants[:, 2, column] = torch.arange(vocabulary)
    nats = candidate.predict(variants).nats[:, 1].detach()
    assert float((-nats[:, column]).exp().sum()) == pytest.approx(1.0, rel=1e-4)
    rest = torch.cat((nats[:, :column], nats[:, column + 1 :]), 1)
    torch.testing.assert_close(rest, rest[:1].expand_as(rest))


def last_column(candidate: Candidate, codes: Tensor) -> int:
    return int(columns_of(candidate, codes)[0, -1]) if isinstance(candidate, CodeByCode) else codes.shape[2] - 1


@pytest.mark.parametrize("name", LEARNERS)
def test_a_candidate_learns_what_it_is_shown(name: str):
    quantizer = tiny_quantizer()
    candidate = build(name, replace(MODEL, decoded_frames=0), quantizer, seed=0).train()
    # Every frame is the last one, with each code one further.
    start = random_codes(4, 1, candidate.model.num_codes)
    codes = (start + torch.arange(6)[None, :, None]) % PICTURE.quantizer.vocabulary
    optimizer = torch.optim.AdamW(candidate.parameters(), lr=6e-3)
    for _ in range(30):
        optimizer.zero_grad()
        candidate(batch_of(codes))[0].backward()
        optimizer.step()
    nats = candidate.eval().predict(codes).nats.detach()
    assert float(nats.mean()) < 0.7 * math.log(PICTURE.quantizer.vocabulary)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(SettingsError, match=r"candidate 'spirals' is unknown: give some of coarse-to-fine, one-stack"):
        build("spirals", MODEL, tiny_quantizer(), seed=0)


def test_a_codec_with_several_codes_in_a_place_is_refused(monkeypatch: pytest.MonkeyPatch):
    quantizer = tiny_quantizer()
    planes = tuple(replace(scale, planes=2) for scale in quantizer.pyramid.scales)
    monkeypatch.setattr(quantizer, "pyramid", replace(quantizer.pyramid, scales=planes))
    with pytest.raises(SettingsError, match="several codes in a place"):
        build("raster", MODEL, quantizer, seed=0)
