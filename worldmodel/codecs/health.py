"""How rich the codes of a codec are while it trains: a few words for the progress, and an alarm when a scale dies."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.codecs.quantizer import MultiScaleQuantizer

DYING_SHARE = 0.01  # of the vocabulary: a scale whose perplexity is below has all but lost its codes


def codebook_metrics(quantizer: MultiScaleQuantizer) -> dict[str, Float[Tensor, ""]]:
    """Perplexity (how many entries are in even use) and dead entries of every scale's codebook."""
    metrics = {}
    for index, codebook in enumerate(quantizer.codebooks):
        metrics[f"perplexity/scale_{index}"] = codebook.perplexity()
        metrics[f"dead_codes/scale_{index}"] = codebook.dead().sum(dtype=torch.float32)
    return metrics


def perplexities(means: Mapping[str, float], num_scales: int) -> str:
    """The perplexity of every scale in few words; `means` are of the metrics of `codebook_metrics`."""
    return "perplexity " + "/".join(f"{means[f'perplexity/scale_{index}']:.0f}" for index in range(num_scales))


def dying_scales(
    means: Mapping[str, float], quantizer: MultiScaleQuantizer, kind: str, option: str = ""
) -> dict[str, str]:
    """What is wrong and what to do about it, for every scale that is dying.

    Args:
        means: of the metrics of `codebook_metrics`.
        quantizer: of the codec.
        kind: of the codec.
        option: under which its settings are, if not under its kind.
    """
    alarms = {}
    for index, (scale, (rows, columns)) in enumerate(zip(quantizer.pyramid.scales, quantizer.grids, strict=True)):
        perplexity = means[f"perplexity/scale_{index}"]
        # One code of two is not few.
        if perplexity < max(DYING_SHARE * scale.vocabulary, 1.5) and math.isfinite(perplexity):
            alarms[f"scale_{index}"] = (
                f"scale {index} of the {kind} codec uses {perplexity:.0f} of {scale.vocabulary} codes: if it does not "
                f"recover, leave its {rows}x{columns} grid out of {option or kind}.quantizer.grids, lower "
                "training.learning_rate or lengthen training.warmup_steps"
            )
    return alarms
