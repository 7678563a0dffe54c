import pytest
import torch
from torch import Tensor

from tests.worldmodel.tiny import TRUNK
from worldmodel.attention import grid_positions
from worldmodel.settings import TransformerSettings
from worldmodel.trunk import Trunk, TrunkCache

DIM, NUM_TOKENS = TRUNK.dim, 4
SHALLOW = TransformerSettings(dim=TRUNK.dim, depth=1, num_heads=TRUNK.num_heads)


BOTH_KINDS = pytest.mark.parametrize("factorised", [False, True])


def make_trunk(window_frames: int, settings: TransformerSettings = TRUNK, factorised: bool = False) -> Trunk:
    torch.manual_seed(0)
    return Trunk(settings, window_frames, grid_positions(2, 2), factorised)


def make_tokens(num_frames: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, num_frames, NUM_TOKENS, DIM, generator=torch.Generator().manual_seed(1))


def changed_frames(trunk: Trunk, tokens: Tensor, frame: int) -> list[int]:
    """Frames whose states change when one token of one frame changes."""
    other = tokens.clone()
    other[:, frame, 0, ::2] += 1.0  # a shift of all channels would be taken out by the norm
    difference = (trunk(other) - trunk(tokens)).abs().amax((0, 3))
    return [t for t, most in enumerate(difference) if most.max() > 1e-6]


@BOTH_KINDS
@pytest.mark.parametrize("frame", [0, 3, 6])
@torch.no_grad()
def test_a_frame_changes_its_own_and_later_states_and_no_earlier_one(frame: int, factorised: bool):
    assert changed_frames(make_trunk(window_frames=8, factorised=factorised), make_tokens(7), frame) == list(
        range(frame, 7)
    )


@torch.no_grad()
def test_all_tokens_of_a_frame_see_each_other():
    trunk, tokens = make_trunk(3), make_tokens(3)
    other = tokens.clone()
    other[:, 1, 3, ::2] += 1.0
    assert ((trunk(other) - trunk(tokens)).abs().amax(-1)[:, 1] > 1e-6).all()


@pytest.mark.parametrize("window_frames", [1, 2, 4])
@torch.no_grad()
def test_one_layer_sees_the_window_and_no_frame_further_back(window_frames: int):
    trunk = make_trunk(window_frames, SHALLOW)
    assert changed_frames(trunk, make_tokens(7), 1) == list(range(1, 1 + window_frames))


@torch.no_grad()
def test_two_layers_see_two_windows():
    assert changed_frames(make_trunk(window_frames=3), make_tokens(9), 1) == list(range(1, 6))


@BOTH_KINDS
@pytest.mark.parametrize("window_frames", [1, 2, 3, 5])
@torch.no_grad()
def test_frame_by_frame_with_a_cache_equals_whole_clips_far_past_the_window(window_frames: int, factorised: bool):
    trunk, tokens, cache = (
        make_trunk(window_frames, factorised=factorised),
        make_tokens(10 * window_frames + 3),
        TrunkCache(),
    )
    states = torch.stack([trunk.step(frame, cache) for frame in tokens.unbind(1)], 1)
    torch.testing.assert_close(states, trunk(tokens), atol=1e-5, rtol=1e-5)


@BOTH_KINDS
@pytest.mark.parametrize("window_frames", [1, 2, 5])
@torch.no_grad()
def test_several_frames_at_a_time_with_a_cache_equal_whole_clips(window_frames: int, factorised: bool):
    trunk, tokens, cache = make_trunk(window_frames, factorised=factorised), make_tokens(13), TrunkCache()
    parts = [trunk.read(part, cache) for part in tokens.split([3, 1, 7, 2], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), trunk(tokens), atol=1e-5, rtol=1e-5)
    assert cache.num_frames == 13


@BOTH_KINDS
@pytest.mark.parametrize("num_states", [1, 2, 6])
@pytest.mark.parametrize("window_frames", [1, 2, 5])
@torch.no_grad()
def test_the_last_states_alone_are_those_of_whole_clips(window_frames: int, num_states: int, factorised: bool):
    trunk, tokens, cache = make_trunk(window_frames, factorised=factorised), make_tokens(24), TrunkCache()
    whole, start = trunk(tokens), 0
    for part in tokens.split([2, 12, 6, 1, 3], 1):
        count = min(num_states, part.shape[1])
        start += part.shape[1]
        found = trunk.read(part, cache, count)
        torch.testing.assert_close(found, whole[:, start - count : start], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_the_last_state_does_not_depend_on_is_not_computed():
    trunk, seen = make_trunk(window_frames=3), []
    for block in trunk.blocks:
        block.feed.register_forward_hook(lambda module, given, out: seen.append(out.shape[1] // NUM_TOKENS))
    trunk.read(make_tokens(20), TrunkCache(), 1)
    assert seen == [3, 1]


@pytest.mark.parametrize("window_frames", [1, 2, 4])
@torch.no_grad()
def test_the_cache_is_one_window_that_stays_where_it_is(window_frames: int):
    trunk, cache = make_trunk(window_frames), TrunkCache()
    addresses = set()
    for number, frame in enumerate(make_tokens(9).unbind(1), start=1):
        trunk.step(frame, cache)
        assert (cache.num_frames, cache.num_kept) == (number, min(number, window_frames))
        shapes = {tensor.shape for layer in cache.layers for tensor in layer}
        assert shapes == {(2, TRUNK.num_heads, window_frames * NUM_TOKENS, DIM // TRUNK.num_heads)}
        addresses.add(tuple(tensor.data_ptr() for layer in cache.layers for tensor in layer))
    assert len(addresses) == 1
    assert len(cache.layers) == TRUNK.depth


@BOTH_KINDS
@torch.no_grad()
def test_steps_at_a_time_that_a_tensor_tells_are_those_at_a_time_that_is_a_number(factorised: bool):
    trunk, tokens = make_trunk(3, factorised=factorised), make_tokens(12)
    caches = TrunkCache(), TrunkCache()
    for cache in caches:
        trunk.read(tokens[:, :4], cache)
    caches[1].num_frames = torch.tensor(4)
    for frame in tokens[:, 4:].unbind(1):
        assert torch.equal(trunk.step(frame, caches[0]), trunk.step(frame, caches[1]))


@BOTH_KINDS
@torch.no_grad()
def test_a_clip_in_a_batch_gives_the_states_it_gives_alone(factorised: bool):
    trunk, tokens = make_trunk(3, factorised=factorised), make_tokens(5, batch=3)
    alone = torch.cat([trunk(clip[None]) for clip in tokens])
    torch.testing.assert_close(trunk(tokens), alone, atol=1e-5, rtol=1e-5)


@BOTH_KINDS
@torch.no_grad()
def test_states_have_unit_scale(factorised: bool):
    states = make_trunk(3, factorised=factorised)(100 * make_tokens(4))
    torch.testing.assert_close(states.square().mean(-1), torch.ones(2, 4, NUM_TOKENS), atol=1e-3, rtol=0)


@BOTH_KINDS
def test_every_weight_receives_a_gradient(factorised: bool):
    trunk = make_trunk(3, factorised=factorised)
    (trunk(make_tokens(4)) * torch.randn(DIM)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in trunk.parameters())


@torch.no_grad()
def test_in_a_factorised_trunk_a_place_sees_the_places_of_its_frame_and_then_its_own_past():
    trunk, tokens = make_trunk(window_frames=3, factorised=True), make_tokens(8)
    # The block of space tells all places of the frame, the block of time carries each on for a window.
    assert changed_frames(trunk, tokens, 2) == [2, 3, 4]
    other = tokens.clone()
    other[:, 2, 0, ::2] += 1.0
    time_alone = make_trunk(window_frames=3, settings=SHALLOW, factorised=True)
    time_alone.axes = ["time"]
    changed = (time_alone(other) - time_alone(tokens)).abs().amax((0, 3)) > 1e-6
    assert changed[2:5, 0].all()
    assert not changed[:, 1:].any()


@torch.no_grad()
def test_a_factorised_trunk_remembers_the_times_of_every_place():
    trunk, cache = make_trunk(window_frames=4, factorised=True), TrunkCache()
    for frame in make_tokens(6).unbind(1):
        trunk.step(frame, cache)
    (space, _), (time, _) = cache.layers
    assert space.shape[2] == 0
    assert time.shape[:3] == (2 * NUM_TOKENS, TRUNK.num_heads, 4)


@BOTH_KINDS
@torch.no_grad()
def test_copies_of_a_clip_go_on_as_the_clip_does(factorised: bool):
    trunk, tokens = make_trunk(window_frames=3, factorised=factorised), make_tokens(6)
    cache = TrunkCache()
    trunk.read(tokens[:, :4], cache)
    cache.branch(2, 3)
    states = trunk.read(tokens[:, 4:].repeat_interleave(3, 0), cache)
    torch.testing.assert_close(states, trunk(tokens)[:, 4:].repeat_interleave(3, 0), atol=1e-5, rtol=1e-5)
