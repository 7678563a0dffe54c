"""Tiny models, quantizers and codes that several tests share."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from streams.settings import ClipSettings
from worldmodel.codecs.codebooks import Codebook, LearnedCodebook
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.decoder import FrameDecoder, Readout
from worldmodel.model import WorldModel
from worldmodel.settings import ModelSettings, PictureCodecSettings, QuantizerSettings, TransformerSettings

Module = TypeVar("Module", bound=nn.Module)

GRIDS = ((1, 1), (2, 2), (4, 4))
SOUND_GRIDS = ((1, 1), (1, 4))
VOCABULARY = 16
LATENT_DIM = 4
CLIPS = ClipSettings(height=16, width=16, num_frames=4)
QUANTIZER = QuantizerSettings(grids=GRIDS, vocabulary=VOCABULARY, dim=LATENT_DIM)
SOUND_QUANTIZER = QuantizerSettings(grids=SOUND_GRIDS, vocabulary=VOCABULARY, dim=LATENT_DIM)
PICTURE = PictureCodecSettings(channels=16, quantizer=QUANTIZER)
TRUNK = TransformerSettings(dim=32, depth=2, num_heads=2)
MODEL = ModelSettings(trunk=TRUNK, decoder=TRUNK, window_frames=3)


def of_type(modules: nn.ModuleList, kind: type[Module]) -> list[Module]:
    """The modules of a list, which all are of one type, as such."""
    found = [module for module in modules if isinstance(module, kind)]
    assert len(found) == len(modules)
    return found


def codebooks_of(quantizer: MultiScaleQuantizer) -> list[Codebook]:
    """Codebooks of all scales."""
    return of_type(quantizer.codebooks, Codebook)


def smoothing_of(quantizer: MultiScaleQuantizer) -> list[nn.Conv2d]:
    """Smoothing convolutions of all scales."""
    return of_type(quantizer.smooth, nn.Conv2d)


def tiny_quantizer(settings: QuantizerSettings = QUANTIZER, seed: int = 0) -> MultiScaleQuantizer:
    """A quantizer in eval mode whose codebooks shrink from scale to scale and whose smoothing is not zero."""
    generator = torch.Generator().manual_seed(seed)
    quantizer = MultiScaleQuantizer(settings)
    with torch.no_grad():
        for index, codebook in enumerate(codebooks_of(quantizer)):
            drawn = torch.randn(codebook.vectors.shape, generator=generator)
            # A lattice keeps its form, and becomes as large as what is drawn.
            table = drawn if isinstance(codebook, LearnedCodebook) else codebook.vectors / codebook.vectors.std()
            codebook.vectors.copy_(table * 0.7**index)
        for weight in quantizer.smooth.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return quantizer.eval()


def tiny_model(settings: ModelSettings = MODEL, sound: bool = False, lively: bool = True, seed: int = 0) -> WorldModel:
    """A world model in eval mode; a lively one has readouts that no longer copy the previous frame."""
    torch.manual_seed(seed)
    model = WorldModel(settings, tiny_quantizer(), tiny_quantizer(SOUND_QUANTIZER, seed=1) if sound else None)
    if lively:
        enliven(model.decoder)
    return model.eval()


def enliven(decoder: FrameDecoder) -> None:
    """Give the readouts weights, which all start at zero, and a weak copy path."""
    for readout in of_type(decoder.readouts, Readout):
        for linear in (readout.change, readout.correct, readout.gate):
            nn.init.normal_(linear.weight, std=2 * linear.in_features**-0.5)
        nn.init.constant_(readout.gate.bias, 0.5)


def random_codes(*shape: int, seed: int = 0) -> Tensor:
    """Codes of the given shape."""
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def yes(batch: int) -> Tensor:
    """Every clip of the batch has sound."""
    return torch.ones(batch, dtype=torch.bool)
