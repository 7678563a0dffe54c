import math

import pytest
import torch
from torch import Tensor, nn

from worldmodel.heads.readout import EvidenceReadout, tell_apart


def features_of(frame: Tensor) -> Tensor:
    largest = frame.max(0).values
    return torch.cat((frame.mean(0), largest, frame[-1], largest * frame[-1]))


def test_evidence_is_summed_over_frames_and_scaled_by_their_root():
    readout, states = EvidenceReadout(8), torch.randn(3, 6, 4, 8)
    expected = []
    for clip in states:
        evidence = torch.zeros(1)
        for frame in clip[2:]:
            evidence = evidence + readout.layers(features_of(frame))
        expected.append(evidence / math.sqrt(4))
    torch.testing.assert_close(readout(states), torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_the_last_token_is_seen_apart_from_the_mean():
    # The last token is that of sound: it must not drown among the tokens of the picture.
    readout, states = EvidenceReadout(8), torch.randn(1, 4, 5, 8)
    assert not torch.allclose(readout(states), readout(states.flip(2)))
    torch.testing.assert_close(readout(states), readout(states[:, :, [1, 2, 3, 0, 4]]))


def test_the_loss_is_the_balanced_cross_entropy_of_both_kinds():
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5, 4.0])
    loss, right = tell_apart(positive, negative)
    bce = nn.functional.binary_cross_entropy_with_logits
    expected = (bce(positive, torch.ones(2)) + bce(negative, torch.zeros(3))) / 2
    torch.testing.assert_close(loss, expected)
    assert right.tolist() == [1, 0, 1, 0, 0]


def test_a_logit_of_zero_is_no_answer():
    loss, right = tell_apart(torch.zeros(2), torch.zeros(2))
    assert right.tolist() == [0, 0, 0, 0]
    assert float(loss) == pytest.approx(math.log(2))
