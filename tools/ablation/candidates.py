"""All that compete, by their names."""

from collections.abc import Callable
from dataclasses import replace

import torch

from tools.ablation.candidate import Candidate
from tools.ablation.code_by_code import CodeByCode, FixedOrder
from tools.ablation.copying import MotionCopy, NoCopy, NoGate, OtherReadouts
from tools.ablation.masked import Masked
from tools.ablation.one_stack import OneStack
from tools.ablation.seen_orders import LearnedOrder, SalientFirst
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.errors import SettingsError
from worldmodel.model import WorldModel
from worldmodel.settings import ModelSettings

CANDIDATES: dict[str, Callable[[WorldModel], Candidate]] = {
    "coarse-to-fine": Candidate,
    "one-stack": OneStack,
    "raster": lambda model: CodeByCode(model, FixedOrder(model, "raster")),
    "spiral": lambda model: CodeByCode(model, FixedOrder(model, "spiral")),
    "quadtree": lambda model: CodeByCode(model, FixedOrder(model, "quadtree")),
    "random-order": lambda model: CodeByCode(model, FixedOrder(model, "random")),
    "saliency": lambda model: CodeByCode(model, SalientFirst(model)),
    "confidence": LearnedOrder,
    "masked": Masked,
    "factorised": Candidate,
    "no-gate": lambda model: OtherReadouts(model, NoGate),
    "no-copy": lambda model: OtherReadouts(model, NoCopy),
    "motion-copy": lambda model: OtherReadouts(model, MotionCopy),
}


def build(name: str, settings: ModelSettings, quantizer: MultiScaleQuantizer, seed: int) -> Candidate:
    """An untrained candidate.

    Raises:
        SettingsError: there is none of this name, or the codec has several codes in a place.
    """
    if name not in CANDIDATES:
        raise SettingsError(f"candidate {name!r} is unknown: give some of {', '.join(CANDIDATES)}")
    if any(scale.planes != 1 or scale.whole_frame for scale in quantizer.pyramid.scales):
        raise SettingsError("the codec has several codes in a place, or none in places: give one of family vq")
    if name == "one-stack":
        # All blocks in one stack: those of trunk and decoder together.
        depth = settings.trunk.depth + settings.decoder.depth
        trunk, decoder = replace(settings.trunk, depth=depth), replace(settings.decoder, depth=0)
        settings = replace(settings, trunk=trunk, decoder=decoder)
    if name == "factorised":
        settings = replace(settings, factorised=True)
    torch.manual_seed(seed)
    return CANDIDATES[name](WorldModel(settings, quantizer, None))
