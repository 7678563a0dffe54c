import dataclasses
from itertools import islice

import pytest
import torch

from tools.bench import device_rollout
from tools.bench.device import resolved
from tools.bench.device_rollout import (
    MANY,
    OURS,
    RASTER,
    SEEN,
    begin,
    build_player,
    chosen_weights,
    frame_bytes,
    frame_flops,
    measure_rollouts,
    prompt_for,
    watch,
    ways_of,
)
from tools.bench.race import Finding, Race
from tools.bench.rollout import cached, raster
from tools.bench.roofline import Peaks, weight_bytes
from tools.bench.settings import DeviceBenchSettings
from tools.bench.untrained import TINY
from worldmodel.rollouts import repeated
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.sound_blocks import SoundBlocks

CPU = torch.device("cpu")
SETTINGS = resolved(DeviceBenchSettings(device="cpu", quick=True, compile=False), CPU)
# One block 64 channels wide: query, key, value and out, the gated feed-forward of 192 channels, two norms of 64
# channels and two of a head's 64.
BLOCK_WEIGHTS = 4 * 64 * 64 + 3 * 64 * 192 + 4 * 64


def test_a_size_gives_rates_of_all_kinds_and_shares_of_the_floor():
    results = list(measure_rollouts(TINY, SETTINGS, CPU, Peaks(1e12, 1e9)))
    ways, race = (result for result in results if isinstance(result, Race))
    assert set(ways.costs) == {"ours", "operation by operation"}
    assert set(race.costs) == {OURS, SEEN, RASTER, MANY}
    found = {result.task: result.value for result in results if isinstance(result, Finding)}
    assert found["device: latents, tiny"] == pytest.approx(race.per_second(OURS))
    assert found["device: pixels and sound, tiny"] == pytest.approx(race.per_second(SEEN))
    assert found["device: many, tiny"] == pytest.approx(race.per_second(MANY))
    share = 100 * found["device: floor by bytes"] / found["device: frame"]
    assert found["device: share of the floor, tiny"] == pytest.approx(share)
    assert found["device: share of that floor"] > share


def test_a_frame_reads_the_bytes_of_a_count_by_hand():
    player = build_player(TINY, SETTINGS, CPU)
    num_bytes, further = frame_bytes(player, 4)
    # 4 + 1 tokens of 64 channels for each of four frames, keys and values.
    kept = 4 * 5 * 64 * 2 * 4
    assert num_bytes == kept + weight_bytes(player.model.embeddings, player.model.trunk, player.model.decoder)
    assert weight_bytes(player.model.trunk) == 4 * (BLOCK_WEIGHTS + 64)  # and the norm behind the blocks
    assert further == 5 * 4 * BLOCK_WEIGHTS  # three scales of pictures, three of sound
    longest = frame_bytes(player, 12)[0] - num_bytes
    assert longest == (7 - 4) * 5 * 64 * 2 * 4  # a frame sees seven before it


def test_a_gpu_repeats_frames_and_keeps_its_weights_in_bf16_unless_something_else_is_named():
    gpu = torch.device("cuda")
    assert ways_of(CPU, False) == {"operation by operation": None}
    assert ways_of(gpu, False) == {"operation by operation": None, "CUDA graph": Repeat(recorded=True)}
    assert [chosen_weights("auto", device) for device in (CPU, gpu)] == ["fp32", "bf16"]
    assert chosen_weights("int8", gpu) == "int8"


def test_a_compiled_rollout_is_one_of_the_ways(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repeated, "compiled_advance", lambda on_cpu: repeated.advance)
    monkeypatch.setattr(device_rollout, "compiler_there", lambda device: True)
    results = list(measure_rollouts(TINY, dataclasses.replace(SETTINGS, compile=True), CPU, Peaks(1e12, 1e9)))
    ways = next(result for result in results if isinstance(result, Race))
    assert set(ways.costs) == {"ours", "operation by operation", "compiled"}
    assert ways.costs["ours"] == ways.costs[ways.forms["ours"]]


def test_in_bf16_the_blocks_take_half_the_bytes_and_the_rollout_goes_on():
    player = build_player(TINY, dataclasses.replace(SETTINGS, weights="bf16"), CPU)
    assert weight_bytes(player.model.decoder.blocks) == 2 * BLOCK_WEIGHTS + 2 * 4 * 64  # norms stay in fp32
    for roll in (cached, raster):
        frames = list(islice(begin(roll, player, 2, 4), 3))
        assert [frame.shape for frame in frames] == [(2, 21 + 7)] * 3


def test_a_frame_needs_more_operations_than_its_blocks_alone():
    player = build_player(TINY, SETTINGS, CPU)
    # Trunk: 5 tokens; decoder: 21 + 7 codes; a multiplication and an addition for each weight of the products.
    assert frame_flops(player, 4) > 2 * (BLOCK_WEIGHTS - 256) * (5 + 28)


def test_prompts_have_codes_of_every_scale_in_its_vocabulary():
    player = build_player(TINY, SETTINGS, CPU)
    prompt = prompt_for(player.model, 3, 50, CPU)
    assert prompt.shape == (3, 50, 28)
    assert prompt[..., :21].max() > 256
    assert prompt[..., 21:].max() < 256


def test_every_frame_that_is_watched_is_decoded():
    player = build_player(TINY, SETTINGS, CPU)
    heard, frames = SoundBlocks(player.sound), begin(cached, player, 1, 4)
    watch(frames, player, heard, 6)
    assert len(heard.codes) == 6
    watch(frames, player, heard, 6)
    assert heard.first == 8  # a block of eight frames is told, and four wait
    assert player.picture.clips.height == 64
