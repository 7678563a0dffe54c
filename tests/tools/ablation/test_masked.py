import torch

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import PICTURE, VOCABULARY, random_codes
from tools.ablation.masked import NUM_ROUNDS, Masked, rounds_of
from tools.ablation.measure import SAMPLINGS


def test_rounds_tell_every_code_once_and_few_at_first():
    rounds = rounds_of(85)
    assert rounds[0][0] == 0
    assert rounds[-1][1] == 85
    assert [start for start, _ in rounds[1:]] == [stop for _, stop in rounds[:-1]]
    counts = [stop - start for start, stop in rounds]
    assert counts == sorted(counts)
    assert len(counts) == NUM_ROUNDS
    assert rounds_of(1) == [(0, 1)]


def test_hidden_codes_are_not_seen():
    candidate = lively("masked")
    assert isinstance(candidate, Masked)
    codes = random_codes(2, 3, candidate.model.num_codes)
    states = candidate.model.states(codes, torch.zeros(2, dtype=torch.bool))[:, 1]
    hidden = torch.rand(codes[:, 2].shape) < 0.5
    others = torch.where(hidden, (codes[:, 2] + 1) % PICTURE.quantizer.vocabulary, codes[:, 2])
    seen = (codes[:, 2] + (~hidden).long()) % PICTURE.quantizer.vocabulary
    told = [
        torch.cat([x.logits for x in candidate.decoder.predict(states, codes[:, 1], target, hidden)], 1)
        for target in (codes[:, 2], others, seen)
    ]
    torch.testing.assert_close(told[0], told[1])
    assert not torch.allclose(told[0], told[2])


@torch.no_grad()
def test_the_rounds_of_a_prediction_are_a_code_length():
    """The probabilities of a code, over all values it may have, add up to 1, whenever it is told."""
    candidate = lively("masked")
    codes, column = random_codes(1, 2, candidate.model.num_codes), candidate.model.num_codes // 2
    total = torch.zeros(())
    for value in range(VOCABULARY):
        codes[:, 1, column] = value
        torch.manual_seed(1)
        total += (-candidate.predict(codes).nats[0, 0, column]).exp()
    torch.testing.assert_close(total, torch.ones(()), rtol=1e-4, atol=1e-4)


def test_a_rollout_tells_every_code():
    candidate = lively("masked")
    prompt = random_codes(3, 4, candidate.model.num_codes)
    frame = next(candidate.roll_out(prompt, SAMPLINGS["drawn"], torch.Generator().manual_seed(0)))
    again = next(candidate.roll_out(prompt, SAMPLINGS["drawn"], torch.Generator().manual_seed(0)))
    other = next(candidate.roll_out(prompt, SAMPLINGS["drawn"], torch.Generator().manual_seed(1)))
    assert frame.shape == prompt[:, 0].shape
    assert torch.equal(frame, again)
    assert not torch.equal(frame, other)
