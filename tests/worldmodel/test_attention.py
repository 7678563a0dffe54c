import functools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.attention import (
    Attention,
    Backend,
    attend,
    grid_positions,
    rotary_turns,
    rotate,
)
from worldmodel.errors import SettingsError
from worldmodel.sight import Sight

HEAD_DIM = 16


def turns_at(times: Tensor, places: Tensor) -> Tensor:
    return rotary_turns(times.double(), places, HEAD_DIM)


def scores(times: Tensor, places: Tensor, seed: int = 0) -> Tensor:
    """Dot products of every token's rotated query with every token's rotated key."""
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, len(times), HEAD_DIM, generator=generator)
    turns = turns_at(times, places)
    return (rotate(query, turns) @ rotate(key, turns).transpose(-1, -2))[0, 0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8), st.integers(-1000, 10**6))
def test_scores_depend_on_differences_of_time_only(times: list[int], shift: int):
    here = torch.tensor(times)
    places = grid_positions(2, 4)[: len(times)]
    torch.testing.assert_close(scores(here, places), scores(here + shift, places), atol=1e-4, rtol=0)


def test_scores_change_with_the_difference_of_time():
    places = grid_positions(1, 2)
    near, far = scores(torch.tensor([3, 4]), places), scores(torch.tensor([3, 5]), places)
    assert (near - far).abs()[0, 1] > 0.01


@pytest.mark.parametrize("head_dim", [16, 32, 64])
def test_no_two_tokens_of_a_window_are_rotated_alike(head_dim: int):
    num_frames, places = 5, grid_positions(8, 8)
    times = torch.arange(num_frames).repeat_interleave(len(places))
    turns = rotary_turns(times.double(), places.repeat(num_frames, 1), head_dim)
    points = torch.view_as_real(turns).flatten(1)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert distances.min() > 0.05


def test_rows_and_columns_and_time_turn_channels_of_their_own():
    base = turns_at(torch.zeros(1), torch.tensor([[0.2, 0.2]]))
    moved = [
        turns_at(torch.ones(1), torch.tensor([[0.2, 0.2]])),
        turns_at(torch.zeros(1), torch.tensor([[0.3, 0.2]])),
        turns_at(torch.zeros(1), torch.tensor([[0.2, 0.3]])),
    ]
    turned = torch.cat([(other != base) for other in moved]).int()
    assert turned.sum(1).tolist() == [4, 2, 2]
    assert (turned.sum(0) == 1).all()


def test_every_resolution_shares_coordinates():
    fine, coarse = grid_positions(4, 6), grid_positions(2, 3)
    children = fine.view(2, 2, 3, 2, 2).transpose(1, 2).flatten(2, 3)
    torch.testing.assert_close(children.mean(2).flatten(0, 1), coarse)
    assert grid_positions(1, 1).tolist() == [[0.5, 0.5]]
    assert grid_positions(1, 2).tolist() == [[0.5, 0.25], [0.5, 0.75]]


def test_rotation_turns_pairs_of_neighbouring_channels():
    x = torch.randn(2, 3, 5, HEAD_DIM)
    angles = torch.randn(5, HEAD_DIM // 2)
    first, second = x[..., 0::2], x[..., 1::2]
    turns = torch.polar(torch.ones_like(angles), angles)
    rotated = rotate(x, turns)
    torch.testing.assert_close(rotated[..., 0::2], first * angles.cos() - second * angles.sin())
    torch.testing.assert_close(rotated[..., 1::2], first * angles.sin() + second * angles.cos())
    assert rotate(x.bfloat16(), turns).dtype == torch.bfloat16
    assert torch.equal(rotate(x.requires_grad_(), turns), rotated)


def naive_attention(module: Attention, x: Tensor, turns: Tensor, mask: Tensor | None) -> Tensor:
    """Self-attention token by token and head by head."""
    query_weight, (key_weight, value_weight) = module.query.weight, module.key_value.weight.chunk(2)
    out = torch.zeros_like(x)
    for item in range(len(x)):
        for token in range(x.shape[1]):
            heads = []
            for head in range(module.num_heads):
                rows = slice(head * module.head_dim, (head + 1) * module.head_dim)
                query = turned(query_weight[rows] @ x[item, token], turns[token], module.query_norm.weight)
                seen = [other for other in range(x.shape[1]) if mask is None or mask[token, other]]
                keys = [turned(key_weight[rows] @ x[item, t], turns[t], module.key_norm.weight) for t in seen]
                weights = [math.exp(float(query @ key) / math.sqrt(module.head_dim)) for key in keys]
                values = [value_weight[rows] @ x[item, other] for other in seen]
                heads.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
            out[item, token] = module.out.weight @ torch.cat(heads)
    return out


def turned(vector: Tensor, turn: Tensor, gain: Tensor) -> Tensor:
    """Layer norm, then rotation of neighbouring channels."""
    vector = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt() * gain
    product = torch.complex(vector[0::2], vector[1::2]) * turn
    return torch.stack((product.real, product.imag), -1).flatten()


@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_attention_equals_a_naive_loop(masked: bool):
    module = Attention(32, 2)
    torch.nn.init.uniform_(module.query_norm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(module.key_norm.weight, 0.5, 1.5)
    x = torch.randn(2, 6, 32)
    turns = turns_at(torch.tensor([0, 0, 1, 1, 2, 2]), grid_positions(1, 2).repeat(3, 1))
    sight = Sight.of_frames(3, 2, 2) if masked else None
    result = module(x, turns, *module.keys_values(x, turns), sight)
    expected = naive_attention(module, x, turns, None if sight is None else sight.mask())
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_xformers_without_a_gpu_is_an_error_that_says_what_to_use():
    module, x = Attention(32, 2, "xformers"), torch.randn(1, 2, 32)
    turns = turns_at(torch.zeros(2), grid_positions(1, 2))
    with pytest.raises(
        SettingsError, match="attention=xformers needs a CUDA device, not cpu: use attention=sdpa there"
    ):
        module(x, turns, *module.keys_values(x, turns), None)


BACKENDS: list[Backend] = ["sdpa", "dense"]
# Frames of many tokens (cut without a mask), of few (cut with small masks, or one call), past a cache, and scales.
SIGHTS = {
    "cut": Sight.of_frames(6, 64, 3),
    "wide window": Sight.of_frames(6, 64, 6),
    "cut with masks": Sight.of_frames(24, 17, 5),
    "one call": Sight.of_frames(4, 17, 3),
    "after a cache": Sight.of_frames(6, 64, 4, num_past=3),
    "scales": Sight.of_scales([1, 4, 16, 64, 256], 17),
}


def direct(query: Tensor, key: Tensor, value: Tensor, sight: Sight | None) -> Tensor:
    """Softmax over all scores, written out; in the type of the inputs."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if sight is not None:
        scores = scores.masked_fill(~sight.mask(), -torch.inf)
    return scores.softmax(-1) @ value


class Drawn(NamedTuple):
    """Queries, keys and values."""

    query: Tensor
    key: Tensor
    value: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> "Drawn":
        return Drawn(change(self.query), change(self.key), change(self.value))


def drawn(sight: Sight, batch: int = 2) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    sizes = (sight.num_queries, max(sight.stops), max(sight.stops))
    return Drawn(*(torch.randn(batch, 3, size, HEAD_DIM, generator=generator) for size in sizes))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SIGHTS)
def test_attending_equals_a_direct_softmax_with_its_gradient(name: str, backend: Backend):
    inputs, pull = drawn(SIGHTS[name]), torch.randn(HEAD_DIM, generator=torch.Generator().manual_seed(1))
    results = []
    for compute in (direct, functools.partial(attend, backend=backend)):
        leaves = inputs.each(lambda x: x.clone().requires_grad_())
        out = compute(*leaves, SIGHTS[name])
        (out * pull).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SIGHTS)
def test_attending_in_bfloat16_is_as_near_as_its_rounding(name: str):
    inputs = drawn(SIGHTS[name]).each(Tensor.bfloat16)
    expected = direct(*inputs.each(Tensor.double), SIGHTS[name])
    for backend in BACKENDS:
        found = attend(*inputs, SIGHTS[name], backend)
        assert found.dtype == torch.bfloat16
        # Means of values near 1 lose half of 2**-7 in the output and as much in the weights.
        torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clips_in_a_batch_attend_as_they_do_alone(backend: Backend):
    sight = SIGHTS["after a cache"]
    inputs = drawn(sight, batch=3)
    alone = [attend(*inputs.each(lambda x, clip=clip: x[clip : clip + 1]), sight, backend) for clip in range(3)]
    torch.testing.assert_close(attend(*inputs, sight, backend), torch.cat(alone), atol=1e-6, rtol=1e-5)


def test_flex_attention_equals_a_direct_softmax_and_has_no_gradient_on_the_cpu():
    sight = SIGHTS["after a cache"]
    inputs = drawn(sight)
    torch.testing.assert_close(attend(*inputs, sight, "flex"), direct(*inputs, sight), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attend(*inputs, None, "flex"), direct(*inputs, None), atol=1e-5, rtol=1e-5)
    inputs.query.requires_grad_()
    with pytest.raises(SettingsError, match="attention=flex has no gradient on the CPU: train with attention=sdpa"):
        attend(*inputs, sight, "flex")


@pytest.mark.parametrize("masked", [True, False])
def test_xformers_is_refused_where_there_is_no_gpu(masked: bool):
    query = torch.randn(1, 2, 4, HEAD_DIM)
    with pytest.raises(SettingsError, match="attention=xformers needs a CUDA device, not cpu: use attention=sdpa"):
        attend(query, query, query, Sight.of_frames(2, 2, 1) if masked else None, "xformers")
    module = Attention(32, 2, "xformers")
    turns = turns_at(torch.zeros(4), grid_positions(2, 2))
    x = torch.randn(1, 4, 32)
    with pytest.raises(SettingsError, match="use attention=sdpa"):
        module(x, turns, *module.keys_values(x, turns), None)


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="xformers has no kernels for the CPU")
def test_xformers_gives_what_sdpa_gives_with_its_gradient():
    # In a process of its own: the GPU is hidden from this one.
    program = """
import torch
from worldmodel.attention import attend
from worldmodel.sight import Sight
for dtype, near in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
    for num_tokens, past in ((5, 0), (16, 0), (6, 7)):
        query = torch.randn(2, 3, num_tokens, 32, device="cuda", dtype=dtype)
        key, value = torch.randn(2, 2, 3, past + num_tokens, 32, device="cuda", dtype=dtype)
        for seen in (Sight.of_scales([1] * num_tokens, past), None):
            results = []
            for backend in ("sdpa", "xformers"):
                leaves = [x.clone().requires_grad_() for x in (query, key, value)]
                out = attend(*leaves, seen, backend)
                out.square().sum().backward()
                results.append([out, *(leaf.grad for leaf in leaves)])
            for one, other in zip(*results):
                torch.testing.assert_close(one, other, atol=near * 10, rtol=near * 10)
"""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
