import dataclasses
import math

import pytest
import torch

from tests.worldmodel.tiny import QUANTIZER, tiny_quantizer
from worldmodel.codecs.health import codebook_metrics, dying_scales, perplexities
from worldmodel.codecs.quantizer import MultiScaleQuantizer


def means_of(*values: float) -> dict[str, float]:
    return {f"perplexity/scale_{index}": value for index, value in enumerate(values)}


@torch.no_grad()
def test_perplexity_and_dead_codes_equal_what_is_counted_by_hand():
    quantizer = tiny_quantizer()
    counts = torch.zeros(16)
    counts[:4] = torch.tensor([1.0, 1.0, 2.0, 4.0])
    counts[4] = 2 * quantizer.codebooks[0].restart_below
    for codebook, values in zip(quantizer.codebooks, (counts, torch.ones(16), torch.zeros(16)), strict=True):
        codebook.counts.copy_(values)
        codebook.uses.copy_(values)
    metrics = codebook_metrics(quantizer)
    shares = [value / float(counts.sum()) for value in counts.tolist() if value]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert float(metrics["perplexity/scale_0"]) == pytest.approx(expected, rel=1e-4)
    assert metrics["dead_codes/scale_0"] == 16 - 4
    assert float(metrics["perplexity/scale_1"]) == pytest.approx(16, rel=1e-4)
    assert metrics["dead_codes/scale_1"] == 0
    assert metrics["perplexity/scale_2"].isnan()  # nothing used yet
    assert metrics["dead_codes/scale_2"] == 16


def test_the_words_beside_the_progress_name_every_scale():
    assert perplexities(means_of(1.7, 40.2, 511.6), 3) == "perplexity 2/40/512"


def test_a_scale_below_a_hundredth_of_its_vocabulary_is_dying():
    quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, vocabulary=512))
    assert dying_scales(means_of(5.2, 300.0, 400.0), quantizer, "picture") == {}
    alarms = dying_scales(means_of(2.2, 300.0, 5.0), quantizer, "picture")
    assert list(alarms) == ["scale_0", "scale_2"]
    assert alarms["scale_0"].startswith("scale 0 of the picture codec uses 2 of 512 codes: ")
    assert "leave its 1x1 grid out of picture.quantizer.grids" in alarms["scale_0"]
    assert "scale 2 of the picture codec uses 5 of 512 codes" in alarms["scale_2"]


def test_few_codes_of_few_are_no_alarm_but_one_is():
    quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, vocabulary=16))
    assert list(dying_scales(means_of(1.6, 1.2, 9.0), quantizer, "sound")) == ["scale_1"]


@torch.no_grad()
def test_latents_that_are_all_the_same_raise_the_alarm_in_every_scale():
    quantizer = MultiScaleQuantizer(dataclasses.replace(QUANTIZER, vocabulary=256)).train()
    for _ in range(300):
        quantizer(torch.ones(8, 4, 4, 4))
    means = {name: float(value) for name, value in codebook_metrics(quantizer).items()}
    # Restarts keep giving the other entries a stake in the counts, which is no use.
    assert set(dying_scales(means, quantizer, "picture")) == {"scale_0", "scale_1", "scale_2"}, means
