"""The model learns: on a tiny physics world it beats the baselines that the README's table names."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streams.clip import to_float, to_uint8
from streams.physics.world import make_clip
from streams.settings import ClipSettings, PhysicsSettings
from worldmodel.cache.latents import CodeBatch
from worldmodel.codecs.objective import still_places
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.quantizer import still_change_share
from worldmodel.evaluation.metrics import psnr, unigram_entropy_bits
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import (
    HeadSettings,
    ModelSettings,
    PictureCodecSettings,
    QuantizerSettings,
    SamplingSettings,
    TransformerSettings,
)

WORLD = PhysicsSettings(height=32, width=32, frames_per_second=10.0, max_discs=1, num_looks=2)
NUM_VIDEOS, NUM_HELDOUT = 160, 32
CONTEXT, HORIZON = 6, 8
TRANSFORMER = TransformerSettings(dim=64, depth=2, num_heads=2)


def fit(module: nn.Module, steps: int, learning_rate: float, loss_of: object) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    module.train()
    for _ in range(steps):
        loss = loss_of()  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    module.eval()


@pytest.fixture(scope="module")
def videos() -> Tensor:
    return torch.stack([torch.from_numpy(make_clip(WORLD, seed).frames) for seed in range(NUM_VIDEOS)])


@pytest.fixture(scope="module")
def codec(videos: Tensor) -> PictureVQ:
    torch.manual_seed(0)
    quantizer = QuantizerSettings(grids=((1, 1), (2, 2), (4, 4)), vocabulary=128, dim=8, sticky_margin=0.1)
    codec = PictureVQ(PictureCodecSettings(channels=24, quantizer=quantizer), ClipSettings(height=32, width=32))
    frames = videos[NUM_HELDOUT:].flatten(0, 1)

    def loss() -> Tensor:
        batch = to_float(frames[torch.randint(len(frames), (32,))])
        rebuilt, quantized = codec(batch)
        return (rebuilt - batch).square().mean() + 0.25 * quantized.loss

    fit(codec, 250, 3e-3, loss)
    return codec


@pytest.fixture(scope="module")
def codes(videos: Tensor, codec: PictureVQ) -> Tensor:
    return torch.cat([codec.encode(to_float(part)) for part in videos.split(16)])


@pytest.fixture(scope="module")
def objective(codes: Tensor, codec: PictureVQ) -> WorldObjective:
    torch.manual_seed(0)
    settings = ModelSettings(trunk=TRANSFORMER, decoder=TRANSFORMER, patch=1, copy_bias=2.0, decoded_frames=6)
    objective = WorldObjective(WorldModel(settings, codec.quantizer, None), HeadSettings(0.0, 0.0, 0.0, 0.0))
    training = codes[NUM_HELDOUT:]

    def loss() -> Tensor:
        start = int(torch.randint(training.shape[1] - 12, ()))
        return objective(batch_of(training[torch.randint(len(training), (16,)), start : start + 12]))[0]

    fit(objective, 250, 3e-3, loss)
    return objective


def batch_of(codes: Tensor) -> CodeBatch:
    size, num_frames, _ = codes.shape
    nothing = torch.zeros(size, num_frames, 0, dtype=torch.int64)
    thumbnails = torch.zeros(size, num_frames, 3, 8, 8, dtype=torch.uint8)
    return CodeBatch(codes, codes, codes[:, ::2], nothing, torch.zeros(size, dtype=torch.bool), thumbnails)


def bits(objective: WorldObjective, context: Tensor, codes: Tensor) -> float:
    silent = torch.zeros(len(codes), dtype=torch.bool)
    with torch.no_grad():
        states = objective.model.states(context, silent)
        return float(objective.next_frame(states, context, codes, silent).bits_per_frame())


def test_the_codec_rebuilds_frames_it_has_not_seen_and_its_codes_stand_still(videos: Tensor, codec: PictureVQ) -> None:
    heldout = to_float(videos[:NUM_HELDOUT])
    codes = codec.encode(heldout)
    mean_frame = to_uint8(to_float(videos[NUM_HELDOUT:]).mean((0, 1))).expand_as(videos[:NUM_HELDOUT])
    rebuilt = psnr(to_uint8(codec.decode(codes)), videos[:NUM_HELDOUT]).mean()
    assert rebuilt > psnr(mean_frame, videos[:NUM_HELDOUT]).mean() + 8
    flicker = still_change_share(codes[..., codec.pyramid.slices[-1]], still_places(heldout, codec.pyramid.grid))
    assert flicker < 0.15


def test_the_next_frame_takes_fewer_bits_than_unigrams_and_than_with_anothers_past(
    objective: WorldObjective, codes: Tensor
) -> None:
    heldout = codes[:NUM_HELDOUT, :16]
    slices = objective.model.decoder.slices
    per_code = unigram_entropy_bits(heldout.numpy(), tuple(slices))
    unigram = sum(scale * (part.stop - part.start) for scale, part in zip(per_code, slices, strict=True))
    own = bits(objective, heldout, heldout)
    assert own < 0.6 * unigram
    assert own < 0.6 * bits(objective, heldout.roll(1, 0), heldout)


def test_rollouts_are_closer_to_the_truth_than_a_copy_of_the_last_frame(
    objective: WorldObjective, codes: Tensor, codec: PictureVQ, videos: Tensor
) -> None:
    prompt, truth = codes[:NUM_HELDOUT, :CONTEXT], videos[:NUM_HELDOUT, CONTEXT : CONTEXT + HORIZON]
    silent = torch.zeros(NUM_HELDOUT, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    frames = roll_out(objective.model, prompt, silent, SamplingSettings(), generator)
    rollout = to_uint8(codec.decode(torch.stack(list(islice(frames, HORIZON)), 1)))
    copy = videos[:NUM_HELDOUT, CONTEXT - 1 : CONTEXT].expand_as(truth)
    ahead = (psnr(rollout, truth) - psnr(copy, truth).clip(max=60)).mean(0)
    assert ahead[3] > 0.5, f"PSNR ahead of the copy per horizon: {np.round(ahead, 2)}"
