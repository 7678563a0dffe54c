import pytest
import torch

from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.quality import psnr, quality


def test_psnr_is_that_of_its_definition():
    truth = torch.full((2, 3, 4, 4), 100.0)
    assert psnr(torch.full((2, 3, 4, 4), 102, dtype=torch.uint8), truth) == pytest.approx(
        10 * torch.log10(torch.tensor(255**2 / 4.0)).item()
    )
    assert psnr(truth.to(torch.uint8), truth) == float("inf")


def test_every_form_has_its_quality(footage: list[Footage], settings: StreamsSettings):
    findings = list(quality(footage, settings))
    values = {(found.contender, found.note): found.value for found in findings}
    assert len(values) == len(findings) >= 8
    # The right frames at the right place; a frame beside would be below 30 dB.
    assert all(30 < value < 80 for value in values.values())
