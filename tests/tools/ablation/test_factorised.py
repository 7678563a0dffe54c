import torch

from tests.tools.ablation.untrained import NUM_FRAMES, lively
from tests.worldmodel.tiny import MODEL
from tools.ablation.factorised import FactorisedTrunk
from worldmodel.trunk import TrunkCache


def trunk_and_tokens() -> tuple[FactorisedTrunk, torch.Tensor]:
    trunk = lively("factorised").model.trunk
    assert isinstance(trunk, FactorisedTrunk)
    return trunk, torch.randn(2, NUM_FRAMES, trunk.num_tokens, MODEL.trunk.dim)


@torch.no_grad()
def test_frames_read_one_by_one_have_the_states_of_a_whole_clip():
    trunk, tokens = trunk_and_tokens()
    cache = TrunkCache()
    steps = [trunk.step(tokens[:, frame], cache) for frame in range(NUM_FRAMES)]
    torch.testing.assert_close(torch.stack(steps, 1), trunk(tokens), rtol=1e-4, atol=1e-5)
    assert cache.layers[0][0].shape[2] == MODEL.window_frames - 1


@torch.no_grad()
def test_a_place_sees_other_places_of_its_frame_and_its_own_past():
    trunk, tokens = trunk_and_tokens()
    now = trunk(tokens)
    other = tokens.clone()
    other[0, 5, 0] += torch.randn(MODEL.trunk.dim)
    changed = (trunk(other)[0] - now[0]).abs().amax(-1) > 1e-5
    assert changed[5].all()
    assert not changed[:5].any()
    # Space first, then time: the frame tells all its places, and each of them its own future.
    assert changed[6].all()
    assert not changed[5 + MODEL.window_frames :].any()
