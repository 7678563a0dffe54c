import torch

from tools.bench.peers.decoding import Raster, Uncached
from tools.bench.untrained import build_model, random_codes
from worldmodel.sight import Sight

NO_SOUND = torch.zeros(2, dtype=torch.bool)


@torch.no_grad()
def test_code_by_code_gives_what_one_pass_with_a_causal_mask_gives():
    model = build_model(21, 32, 2)
    codes = random_codes(2, 3, 21)
    state, previous, target = model.states(codes, NO_SOUND)[:, 1], codes[:, 1], codes[:, 2]
    raster = Raster(model.decoder)
    cache = raster.start(state)
    stepped = [raster.step(state, previous, target, cache) for _ in raster.slices]
    model.decoder.sight = Sight.of_scales([1] * 21, state.shape[1])  # every code is a group of its own
    for one, scale in zip(stepped, model.decoder(state, previous, target), strict=True):
        torch.testing.assert_close(one, scale.logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_a_cache_the_logits_are_the_same():
    model = build_model(21, 32, 2)
    codes = random_codes(2, 3, 21)
    state, previous, target = model.states(codes, NO_SOUND)[:, -1], codes[:, -1], random_codes(2, 1, 21)[:, 0]
    uncached = Uncached(model, codes, NO_SOUND)
    caches = uncached.start(state), model.decoder.start(state)
    for _ in uncached.slices:
        anew = uncached.step(torch.empty(2, 0, 32), previous, target, caches[0])
        torch.testing.assert_close(anew, model.decoder.step(state, previous, target, caches[1]), atol=1e-4, rtol=1e-4)
