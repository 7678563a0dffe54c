import torch

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import LATENT_DIM, VOCABULARY, random_codes
from tools.ablation.copying import MotionCopy, NoCopy
from worldmodel.layout import Scale


def test_an_untrained_readout_without_a_copy_path_prefers_no_code():
    readout = NoCopy(8, LATENT_DIM, Scale(2, 2, VOCABULARY), copy_bias=4.0)
    readout.initialise()
    vectors = torch.randn(1, VOCABULARY, LATENT_DIM)
    told = [
        readout(torch.randn(3, 4, 8), torch.randn(3, 4, LATENT_DIM), vectors, random_codes(3, 4, seed=seed))[0]
        for seed in (0, 1)
    ]
    torch.testing.assert_close(told[0], told[1])


def test_a_code_is_copied_from_where_its_gate_points():
    readout = MotionCopy(8, LATENT_DIM, Scale(4, 4, VOCABULARY), copy_bias=0.0)
    readout.initialise()
    side = 2 * readout.REACH + 1
    centre = side * side // 2
    with torch.no_grad():
        readout.gates.bias[centre + 1] = 50.0  # from one to the right
    previous = random_codes(2, 16)
    logits, _ = readout(
        torch.randn(2, 16, 8), torch.zeros(2, 16, LATENT_DIM), torch.zeros(1, VOCABULARY, LATENT_DIM), previous
    )
    expected = previous.unflatten(1, (4, 4))[:, :, [1, 2, 3, 3]].flatten(1)
    assert torch.equal(logits.argmax(-1), expected)


def test_all_scales_of_a_candidate_copy_by_motion():
    candidate = lively("motion-copy")
    assert all(isinstance(readout, MotionCopy) for readout in candidate.model.decoder.readouts)
