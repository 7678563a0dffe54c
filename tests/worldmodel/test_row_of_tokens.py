"""A picture codec whose codes are a row of tokens goes the way of the others: training, cache, measures, world."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streams.addresses import find_videos
from streams.physics.world import write_clip
from streams.videos import VideoSource
from tests.worldmodel.codecs.test_prefix_quantizer import made
from tests.worldmodel.test_objective import OFF, ON
from tests.worldmodel.tiny import MODEL, enliven
from tests.worldmodel.tiny_run import CLIPS
from tests.worldmodel.whole_run import LOADER, TRAINING, WORLD
from worldmodel.cache.build import BuildOptions, encode_videos
from worldmodel.cache.checking import check_codes, check_files, check_values
from worldmodel.cache.encoding import clip_settings
from worldmodel.cache.latents import CodeBatch, LatentCache
from worldmodel.codecs.store import load_codec
from worldmodel.codecs.tokens_1d import PictureTokens
from worldmodel.commands import train_codec, train_world
from worldmodel.errors import SettingsError
from worldmodel.evaluation.codec import evaluate_codecs
from worldmodel.evaluation.metrics import unigram_entropy_bits
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.rollouts.rollout import roll_out, roll_out_anew
from worldmodel.run import load_run
from worldmodel.settings import (
    EvaluateCodecSettings,
    QuantizerSettings,
    SamplingSettings,
    TokenizerSettings,
    Tokens1dSettings,
    TrainSettings,
    TransformerSettings,
)

VOCABULARY = 16  # of a scale of the quantiser that `made` gives
TOKENS = Tokens1dSettings(
    transformer=TransformerSettings(dim=32, depth=1, num_heads=2),
    quantizer=QuantizerSettings(grids=((1, 1), (1, 2), (1, 6)), vocabulary=16, dim=4),
)


def world_model(patch: int = 1) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(replace(MODEL, patch=patch, decoded_frames=0, copy_bias=1.0), made(), None)


def trivial_world(num_clips: int, num_frames: int = 6) -> Tensor:
    """Codes of six tokens: the first counts frames, the next two are drawn, the last are copies of those before."""
    start = torch.randint(VOCABULARY, (num_clips, 1, 1))
    first = (start + torch.arange(num_frames)[:, None]) % VOCABULARY
    drawn = torch.randint(VOCABULARY, (num_clips, num_frames, 2))
    return torch.cat((first, drawn, first, drawn), 2)


def batch_of(codes: Tensor) -> CodeBatch:
    size, num_frames, _ = codes.shape
    nothing = torch.zeros(size, num_frames, 0, dtype=torch.int64)
    thumbnails = torch.zeros(size, num_frames, 3, 8, 8, dtype=torch.uint8)
    return CodeBatch(codes, codes, codes[:, ::2], nothing, torch.zeros(size, dtype=torch.bool), thumbnails)


def test_the_world_model_learns_what_comes_next_and_what_the_prefix_says_of_the_rest():
    objective = WorldObjective(world_model(), OFF).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    for _ in range(150):
        loss, _ = objective(batch_of(trivial_world(8)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heldout = trivial_world(32)
    slices = tuple(objective.model.decoder.slices)
    per_code = unigram_entropy_bits(heldout.numpy(), slices)
    unigram = sum(bits * (part.stop - part.start) for bits, part in zip(per_code, slices, strict=True))
    with torch.no_grad():
        bits = float(objective.eval()(batch_of(heldout))[1]["next/bits_per_frame"])
    # What is drawn costs 8 bits at least, and all tokens 24 to one who sees neither the past nor the prefix.
    assert unigram > 23
    assert bits < 0.7 * unigram, bits


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_a_rollout_that_remembers_equals_one_that_computes_all_again(patch: int):
    model = world_model(patch)
    enliven(model.decoder)
    codes, silent = torch.randint(VOCABULARY, (2, 3, 6)), torch.zeros(2, dtype=torch.bool)
    assert model.eval().states(codes, silent).shape[2] == 6 // patch
    rollouts = []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(1)
        frames = (roll_out if cached else roll_out_anew)(model, codes, silent, SamplingSettings(), generator)
        rollouts.append(torch.stack(list(islice(frames, 4)), 1))
    assert torch.equal(*rollouts)


@torch.no_grad()
def test_one_step_of_the_decoder_is_a_part_of_all_and_sees_the_prefix():
    model = world_model().eval()
    enliven(model.decoder)
    codes, silent = torch.randint(VOCABULARY, (2, 2, 6)), torch.zeros(2, dtype=torch.bool)
    state, previous, target = model.states(codes, silent)[:, 0], codes[:, 0], codes[:, 1]
    whole, cache = model.decoder(state, previous, target), model.decoder.start(state)
    other = target.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCABULARY
    changed = model.decoder(state, previous, other)
    for level in range(3):
        logits = model.decoder.step(state, previous, target, cache)
        torch.testing.assert_close(logits, whole[level].logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(changed[level].logits, whole[level].logits) == (level == 0)


def test_tokens_that_do_not_fill_patches_of_the_trunk_are_an_error():
    with pytest.raises(ValueError, match=r"model\.patch=4 must divide the finest grid 1x6"):
        world_model(4)


def test_flow_is_refused_since_no_token_has_a_place():
    with pytest.raises(ValueError, match=r"heads\.flow=0\.5 reads motion .* set heads\.flow to 0"):
        WorldObjective(world_model(), replace(ON, flow=0.5))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_clip(folder, WORLD, seed)
    return folder


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a codec, trained in two parts."""
    run = tmp_path_factory.mktemp("codec") / "run"
    clips, training = replace(CLIPS, num_frames=4), replace(TRAINING, steps=4, checkpoint_every=2)
    settings = TokenizerSettings(
        str(videos), str(run), clips=clips, loader=LOADER, training=training, family="tokens_1d", tokens_1d=TOKENS
    )
    train_codec(settings)
    train_codec(replace(settings, training=replace(training, steps=6)), resume=True)
    return run


def test_it_is_trained_and_resumed_and_measured(videos: Path, run: Path, tmp_path: Path):
    codec = load_codec(run)
    assert isinstance(codec, PictureTokens)
    assert codec.settings == TOKENS
    evaluate_codecs(EvaluateCodecSettings([str(run)], str(videos), str(tmp_path), num_clips=2, num_frames=6))
    (group,) = json.loads((tmp_path / "codecs.json").read_text())["groups"]
    measures = group["codecs"]["run"]
    assert (measures["tokens_per_frame"], measures["training_steps"]) == (6, 6)
    assert len(measures["scales"]) == 3
    assert (tmp_path / "codecs_picture_16x16_10fps.png").is_file()


def test_a_cache_of_its_codes_is_built_and_verified_and_a_world_trained_from_it(
    videos: Path, run: Path, tmp_path: Path
):
    codecs = [load_codec(run)]
    source = VideoSource(find_videos(videos), clip_settings(codecs, 16))
    encode_videos(source, codecs, tmp_path / "cache.zarr", BuildOptions(0.3, thumbnail_side=16, progress=False))
    check_files(tmp_path / "cache.zarr")
    cache = LatentCache(tmp_path / "cache.zarr")
    check_values(cache)
    assert cache.info.pyramids["picture"] == codecs[0].pyramid
    assert check_codes(cache, codecs, 2, np.random.default_rng(0)).shares["picture"] == 1
    settings = TrainSettings(
        [str(run)],
        str(tmp_path / "world"),
        str(tmp_path / "cache.zarr"),
        num_frames=8,
        loader=LOADER,
        model=MODEL,
        heads=replace(ON, flow=0.0),
        training=replace(TRAINING, steps=2, checkpoint_every=2),
    )
    with pytest.raises(SettingsError, match="every code of this picture codec is of the whole frame"):
        train_world(replace(settings, heads=ON))
    train_world(settings)
    assert load_run(tmp_path / "world").step == 2
