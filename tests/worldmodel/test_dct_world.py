"""The world model over codes of several planes, as the DCT codec makes them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from streams.clip import to_float
from tests.worldmodel.tiny import CLIPS, MODEL, enliven
from worldmodel.cache.latents import CodeBatch
from worldmodel.codecs.dct import PictureDCT
from worldmodel.evaluation.metrics import entropy_bits, psnr
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.rollouts.rollout import roll_out, roll_out_anew
from worldmodel.settings import DctSettings, HeadSettings, SamplingSettings

NUM_FRAMES = 8
DCT = DctSettings(block=4, qualities=(30,), bands=(1, 3))


@pytest.fixture(scope="module")
def codec() -> PictureDCT:
    return PictureDCT(DCT, CLIPS).eval()


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """A coloured square that goes round in steps of a block, from each of the places where it can begin."""
    clips = torch.full((8, NUM_FRAMES, 3, 16, 16), 60, dtype=torch.uint8)
    colour = torch.tensor([220, 120, 40], dtype=torch.uint8)[:, None, None]
    for clip, frame in itertools.product(range(8), range(NUM_FRAMES)):
        row, column = 8 * (clip // 4), 4 * ((clip + frame) % 4)
        clips[clip, frame, :, row : row + 8, column : column + 4] = colour
    return clips


@pytest.fixture(scope="module")
def codes(codec: PictureDCT, frames: Tensor) -> Tensor:
    return codec.encode(to_float(frames))


def tiny_world(codec: PictureDCT) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(replace(MODEL, decoded_frames=3), codec.quantizer, None)


def silent(codes: Tensor) -> Tensor:
    return torch.zeros(len(codes), dtype=torch.bool)


def batch_of(codes: Tensor) -> CodeBatch:
    nothing = torch.zeros(*codes.shape[:2], 0, dtype=torch.int64)
    thumbnails = torch.zeros(*codes.shape[:2], 3, 8, 8, dtype=torch.uint8)
    return CodeBatch(codes, codes, codes[:, ::2], nothing, silent(codes), thumbnails)


@pytest.fixture(scope="module")
def trained(codec: PictureDCT, codes: Tensor) -> WorldObjective:
    objective = WorldObjective(tiny_world(codec), HeadSettings(0.0, 0.0, 0.0, 0.0)).train()
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        objective(batch_of(codes))[0].backward()
        optimizer.step()
    return objective.eval()


def test_the_codes_have_several_planes_and_the_model_a_token_for_every_place(codec: PictureDCT):
    decoder = tiny_world(codec).decoder
    assert [scale.planes for scale in decoder.scales] == [2, 1, 4, 2, 26, 13]
    assert len(decoder.turns) == 3 * (2 * 2 + 4 * 4)
    assert decoder.slices[-1].stop == codec.pyramid.num_codes


@torch.no_grad()
def test_all_scales_at_once_equal_scale_by_scale(codec: PictureDCT, codes: Tensor):
    model = tiny_world(codec).eval()
    enliven(model.decoder)
    state = model.states(codes, silent(codes))[:, 0]
    at_once = model.decoder(state, codes[:, 0], codes[:, 1])
    cache, decoded = model.decoder.start(state), torch.zeros_like(codes[:, 1])
    for expected, scale, columns in zip(at_once, model.decoder.scales, model.decoder.slices, strict=True):
        logits = model.decoder.step(state, codes[:, 0], decoded, cache)
        assert logits.shape == (8, scale.num_codes, scale.vocabulary)
        torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-4)
        assert expected.error.shape == (8, scale.num_codes)
        decoded[:, columns] = codes[:, 1, columns]


@torch.no_grad()
def test_an_untrained_model_copies_every_plane(codec: PictureDCT, codes: Tensor):
    model = tiny_world(codec).eval()
    # Any codes at all: the most likely one is what stood at the same place in the same plane.
    sizes = torch.cat([torch.full((scale.num_codes,), scale.vocabulary) for scale in codec.pyramid.scales])
    previous = (torch.rand(8, len(sizes)) * sizes).long()
    predictions = model.decoder(model.states(codes, silent(codes))[:, 0], previous, previous)
    assert torch.equal(torch.cat([scale.logits.argmax(-1) for scale in predictions], 1), previous)


@torch.no_grad()
@pytest.mark.parametrize("moved_scales", [0, 3])
def test_a_cached_rollout_equals_an_uncached_one(codec: PictureDCT, codes: Tensor, moved_scales: int):
    model = tiny_world(codec).eval()
    enliven(model.decoder)
    found = []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(1)
        sampling = SamplingSettings(moved_scales=moved_scales)
        by = roll_out if cached else roll_out_anew
        frames = by(model, codes[:2, :3], silent(codes[:2]), sampling, generator)
        found.append(torch.stack(list(itertools.islice(frames, 2 * MODEL.window_frames)), 1))
    assert torch.equal(*found)
    assert (found[0][:, 1:] != found[0][:, :-1]).any(-1).all()


@torch.no_grad()
def test_bits_are_counted_over_all_codes_and_fall_far_below_their_entropy(trained: WorldObjective, codes: Tensor):
    states = trained.model.states(codes, silent(codes))
    found = trained.next_frame(states, codes, codes, silent(codes))
    assert found.nats.shape == (8, NUM_FRAMES - 1, codes.shape[2])
    assert float(found.bits_per_frame()) == pytest.approx(float(found.nats.sum(2).mean()) / np.log(2), rel=1e-4)
    unigram = sum(entropy_bits(np.bincount(column)) for column in codes.flatten(0, 1).numpy().T)
    assert float(found.bits_per_frame()) < 0.2 * unigram


@pytest.mark.parametrize("sampling", [SamplingSettings(temperature=[0.0]), SamplingSettings(moved_scales=2)])
def test_a_rollout_goes_on_as_the_world_does(
    trained: WorldObjective, codec: PictureDCT, codes: Tensor, frames: Tensor, sampling: SamplingSettings
):
    generator = torch.Generator().manual_seed(0)
    found = roll_out(trained.model, codes[:, :3], silent(codes), sampling, generator)
    imagined = (codec.decode(torch.stack(list(itertools.islice(found, 3)), 1)) + 1) * 127.5
    quality = psnr(imagined.round().byte(), frames[:, 3:6]).mean()
    still = psnr(frames[:, 2:3].expand(-1, 3, -1, -1, -1).contiguous(), frames[:, 3:6]).mean()
    assert quality > still + 5
