import torch
from torch import nn

from tests.tools.ablation.test_candidates import batch_of
from tests.tools.ablation.test_code_by_code import columns_of
from tests.tools.ablation.untrained import NUM_FRAMES, lively
from tests.worldmodel.tiny import MODEL, VOCABULARY, random_codes, tiny_quantizer
from tools.ablation.candidates import build
from tools.ablation.seen_orders import SURPRISE_WEIGHT, LearnedOrder, SurestFirst


def learned() -> tuple[LearnedOrder, SurestFirst]:
    candidate = lively("confidence")
    assert isinstance(candidate, LearnedOrder)
    assert isinstance(candidate.decoder, SurestFirst)
    return candidate, candidate.decoder


@torch.no_grad()
def test_the_code_that_stands_out_in_the_frame_before_is_decoded_first():
    candidate = lively("saliency")
    finest = candidate.model.decoder.slices[-1]
    codes = torch.zeros(2, 3, candidate.model.num_codes, dtype=torch.long)
    vectors = candidate.model.decoder.vectors(len(candidate.model.decoder.scales) - 1)[0]
    furthest = int((vectors - vectors[0]).square().sum(1).argmax())
    for clip, place in enumerate((5, 10)):
        codes[clip, 1, finest.start + place] = furthest
        codes[clip, 2, finest.start + 15 - place] = furthest  # of the frame itself nothing is known
    order = columns_of(candidate, codes)
    assert order[:, finest.start].tolist() == [finest.start + 5, finest.start + 10]


@torch.no_grad()
def test_a_head_that_knows_the_surprise_has_the_surest_place_first():
    candidate, decoder = learned()
    codes = random_codes(2, 3, candidate.model.num_codes)
    nn.init.zeros_(decoder.surprise.weight)
    nn.init.zeros_(decoder.surprise.bias)
    assert (columns_of(candidate, codes) == torch.arange(codes.shape[2])).all()  # all tie
    decoder.surprise.weight[-1, 3] = 1.0  # the finest scale will cost what channel 3 of its tokens says
    states = candidate.model.states(codes, torch.zeros(2, dtype=torch.bool))[:, -2]
    channel = decoder.ask(states, codes[:, -2], codes[:, -1]).tokens[-1][..., 3]
    places = columns_of(candidate, codes)[:, decoder.slices[-1]] - decoder.slices[-1].start
    ordered = channel.gather(1, places)
    assert (ordered.diff(dim=1) >= 0).all()
    assert (ordered.diff(dim=1) > 0).any()


def test_the_head_learns_by_its_own_loss_where_the_sure_places_are():
    candidate = build("confidence", MODEL, tiny_quantizer(), seed=0)
    assert isinstance(candidate, LearnedOrder)
    assert isinstance(candidate.decoder, SurestFirst)
    codes = 1 + random_codes(3, 4, candidate.model.num_codes) % (VOCABULARY - 1)
    codes[..., ::2] = 0  # half of the places stand still
    found, before = candidate.judge(codes)
    candidate.requires_grad_(False)
    candidate.decoder.surprise.requires_grad_(True)
    optimizer = torch.optim.Adam(candidate.decoder.surprise.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        candidate.judge(codes)[1].backward()
        optimizer.step()
    after = float(candidate.judge(codes)[1].detach())
    assert after < 0.5 * float(before.detach())
    assert after < 0.6 * float(found.nats.detach().var())  # it tells more than the mean
    finest = candidate.decoder.slices[-1]
    first = columns_of(candidate, codes)[:, finest][:, : (finest.stop - finest.start) // 2]
    assert (codes[:, -1].gather(1, first) == 0).float().mean() > 0.8


def test_the_heads_loss_gives_no_gradient_to_anything_else():
    candidate, decoder = learned()
    _, missed = candidate.judge(random_codes(2, 4, candidate.model.num_codes))
    missed.backward()
    moved = {name for name, each in decoder.named_parameters() if each.grad is not None and each.grad.any()}
    assert moved == {"surprise.weight", "surprise.bias"}
    others = [each for name, each in candidate.named_parameters() if "surprise" not in name]
    assert all(each.grad is None for each in others)


def test_the_head_is_trained_beside_the_candidates_loss_and_is_no_part_of_its_bits():
    candidate, decoder = learned()
    codes = random_codes(2, NUM_FRAMES, candidate.model.num_codes)
    found, missed = candidate.judge(codes)
    predicted = candidate.predict(codes)
    torch.testing.assert_close(found.nats, predicted.nats)
    loss, metrics = candidate(batch_of(codes))
    torch.testing.assert_close(loss, candidate.loss_of(predicted)[0] + SURPRISE_WEIGHT * missed)
    torch.testing.assert_close(metrics["next/surprise_error"], missed.detach())
    nn.init.constant_(decoder.surprise.bias, 100.0)  # the same order, but far from true
    assert float(candidate.judge(codes)[1].detach()) > 1000
    torch.testing.assert_close(candidate.predict(codes).nats, predicted.nats)
