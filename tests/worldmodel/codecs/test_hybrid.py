from dataclasses import replace

import numpy as np
import pytest
import torch

from streams.settings import ClipSettings
from tests.jpeg import moving
from worldmodel.codecs.hybrid import PictureHybrid, waves_of
from worldmodel.codecs.objective import PictureObjective
from worldmodel.settings import HybridSettings, QuantizerSettings

CLIPS = ClipSettings(height=32, width=48)
QUANTIZER = QuantizerSettings(grids=((1, 1), (2, 3), (4, 6)), vocabulary=32, dim=16)
SETTINGS = HybridSettings(quantizer=QUANTIZER)


def test_fully_whitened_latents_have_no_mean_and_unit_spread():
    codec = PictureHybrid(replace(SETTINGS, whitening=1.0), CLIPS)
    codec.fit(moving())
    latent = codec.latent(moving()[None])[0]
    torch.testing.assert_close(latent.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.std((0, 2, 3)), torch.ones(16), atol=1e-3, rtol=0)


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_latents_have_a_mean_square_of_one_whatever_the_whitening(whitening: float):
    codec = PictureHybrid(replace(SETTINGS, whitening=whitening), CLIPS)
    codec.fit(moving())
    assert float(codec.latent(moving()[None]).square().mean()) == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_with_all_frequencies_the_latent_is_the_picture(whitening: float):
    quantizer = replace(QUANTIZER, dim=192)
    settings = HybridSettings(luma_frequencies=64, chroma_frequencies=64, whitening=whitening, quantizer=quantizer)
    codec = PictureHybrid(settings, CLIPS)
    codec.fit(moving())
    rebuilt = codec.synthesise(codec.analyse(moving()))
    assert (rebuilt - moving()).abs().max() * 127.5 < 2.5  # what YCbCr in whole numbers loses


def test_waves_are_those_of_the_inverse_transform_by_a_naive_loop():
    waves = waves_of(4, 3, 1)
    assert waves.shape == (5, 3, 4, 4)
    for row in range(4):
        for column in range(4):
            # Zigzag 1 is the first frequency along a row, 2 along a column.
            along, down = (np.sqrt(1 / 8) * np.cos(np.pi * (2 * at + 1) / 8) for at in (column, row))
            assert waves[1, :, row, column].tolist() == pytest.approx([along] * 3, abs=1e-4)
            assert waves[2, :, row, column].tolist() == pytest.approx([down] * 3, abs=1e-4)
            assert waves[4, :, row, column].tolist() == pytest.approx([1.402 / 4, -0.71414 / 4, 0], abs=1e-4)


def test_it_is_trained_by_the_objective_of_pictures():
    torch.manual_seed(0)
    codec = PictureHybrid(SETTINGS, CLIPS).train()
    codec.fit(moving())
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-3)
    objective = PictureObjective(codec)
    errors = []
    for step in range(6):
        rebuilt, quantized = objective.codec(moving())
        errors.append(float((rebuilt - moving()).square().mean().detach()))
        (quantized.loss + (rebuilt - moving()).square().mean()).backward()
        # The refiner begins as zero, so that its layers are reached one after another.
        learning = [weight.grad is not None and bool(weight.grad.any()) for weight in codec.parameters()]
        assert all(learning) if step > 3 else any(learning)
        optimizer.step()
        optimizer.zero_grad()
    assert errors[-1] < 0.7 * errors[0]


WRONG = [
    ({"luma_frequencies": 9}, {}, r"hybrid.quantizer.dim=16 must be .* which is 15"),
    ({"luma_frequencies": 16, "chroma_frequencies": 0}, {}, "chroma_frequencies=0 must be 1 at least"),
    ({"block": 4, "luma_frequencies": 17}, {}, "hybrid.quantizer.dim=16 must be"),
    ({"refiner_channels": -8}, {}, "hybrid.refiner_channels=-8 must be 0"),
    ({}, {"height": 64}, "frames of 64x48 do not fit a finest grid of 4x6 blocks of 8"),
]


@pytest.mark.parametrize(("settings", "size", "message"), WRONG)
def test_sizes_that_do_not_fit_are_errors(settings: dict, size: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PictureHybrid(replace(SETTINGS, **settings), replace(CLIPS, **size))
