"""Codecs of pictures and sound, and what they are trained on."""

from dataclasses import dataclass, field
from typing import Literal

from worldmodel.settings.model import TransformerSettings


@dataclass(frozen=True)
class QuantizerSettings:
    """Multi-scale residual quantiser.

    Attributes:
        bit_price: what a bit of a code of the finest scale costs (in units of the frame's variance of latents over its
            places): a rare entry is taken only where it is better by that; 0 takes the nearest. In
            training it rises from nothing over the first half.
        kind: how the entries of a scale come about: vq learns each, fsq lays them out on a lattice of 3 to 8 levels an
            axis (vocabulary is their product), bsq on one of signs (vocabulary is a power of two).
        grids: (rows, columns) of every scale, coarse to fine; the last is the latent's own grid.
        vocabulary: entries in the codebook of each scale.
        dim: channels of a latent.
        decay: moving average of the codebook statistics per step.
        restart_below: entries whose moving count falls below this are restarted from the batch (vq).
        sticky_margin: how much worse (in units of the mean squared latent, in tokens_1d of the codebook's variance) the
            previous frame's code may be and still be kept; 0 switches stickiness off.
    """

    grids: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (4, 4), (8, 8))
    vocabulary: int = 512
    dim: int = 16
    decay: float = 0.98
    restart_below: float = 0.05
    sticky_margin: float = 0.05
    bit_price: float = 0.0
    kind: Literal["vq", "fsq", "bsq"] = "vq"


@dataclass(frozen=True)
class PictureCodecSettings:
    """Convolutional autoencoder of single frames around a multi-scale quantiser.

    Attributes:
        channels: of the finest convolutions; each halving of the grid doubles them.
        quantizer: of the latents.
        jpeg_quality: frames pass through JPEG of this quality (10 to 30, say) before they are encoded, so that no code
            is spent on what JPEG leaves out; the decoder still learns the frames as they were. 0 leaves them alone.
    """

    channels: int = 64
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)
    jpeg_quality: int = 0


@dataclass(frozen=True)
class DctSettings:
    """JPEG's transform as a codec of pictures; nothing is trained.

    Attributes:
        block: side of a block in pixels.
        chroma: half as many rows and columns of colour (JPEG's 4:2:0), or full (4:4:4).
        qualities: of JPEG (1 to 100), coarse to fine: each refines what those before it left. With bits_per_frame, the
            lowest and the highest that a frame may be given.
        bands: at which zigzag frequency each scale stops, DC first; one more takes the rest.
        dc: what stands for the mean of a block: its difference to its left neighbour (as in JPEG), or its value.
        sticky_margin: how much worse (in squared steps of the quantiser) the previous frame's value may be and still be
            kept; 0 switches stickiness off.
        bits_per_frame: what a frame's codes should cost when JPEG writes them; its quality follows. 0 leaves it fixed.
    """

    block: Literal[4, 8, 16] = 8
    chroma: Literal["half", "full"] = "half"
    qualities: tuple[int, ...] = (20,)
    bands: tuple[int, ...] = (1, 6, 15)
    dc: Literal["difference", "value"] = "difference"
    sticky_margin: float = 0.5
    bits_per_frame: int = 0


@dataclass(frozen=True)
class HybridSettings:
    """Multi-scale quantiser over the whitened DCT coefficients of blocks, and a network that refines what they show.

    Attributes:
        block: side of a block in pixels; the finest grid has one place for each.
        luma_frequencies: coefficients of luma in a latent, in zigzag order; higher frequencies are left out.
        chroma_frequencies: the same of each of the two chromas.
        whitening: coefficients are divided by their standard deviation to this power: 1 makes all matter alike, 0 as
            much as they do in the picture, which rebuilt real videos best (without a refiner 24.5 dB; 23.8 with 0.5,
            21.8 with 1).
        refiner_channels: of the network that adds to the linear decode what it leaves out; 0 for none.
        quantizer: of the latents; dim is luma_frequencies + 2 * chroma_frequencies.
    """

    block: Literal[4, 8, 16] = 8
    luma_frequencies: int = 10
    chroma_frequencies: int = 3
    whitening: float = 0.0
    refiner_channels: int = 48
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)


@dataclass(frozen=True)
class Tokens1dSettings:
    """Transformers that turn a frame into one row of learned tokens and back (a 1-D tokenizer: TiTok, FlexTok).

    Attributes:
        patch: side in pixels of the patches that the transformers read and paint.
        transformer: of the encoder, and of the decoder again.
        nested_dropout: share of the frames that are painted from a prefix of their tokens while training, which ends
            where a scale does; with 0, only whole rows can be decoded.
        quantizer: of the latents; grids are (1, tokens in all): every scale lengthens the row, and the last grid is all
            of it.
    """

    patch: int = 8
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    nested_dropout: float = 0.5
    quantizer: QuantizerSettings = field(
        default_factory=lambda: QuantizerSettings(grids=((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64)))
    )


@dataclass(frozen=True)
class PictureLossSettings:
    """What a picture codec is trained on beside squared and absolute error and the commitment to its codes.

    Attributes:
        still_weight: of the movement of latents where the picture stands still, in units of the mean squared latent.
        sticky: train with codes that are sticky in time, as they will be used, and not with every frame's nearest.
        perceptual_weight: of the distance of VGG16's features; 0 needs no weights of it.
        perceptual_file: weights of VGG16 in torchvision's names, a .safetensors file.
        perceptual_sha256: hash of that file; another is refused.
        adversarial_weight: pull of a patch discriminator, in units of the picture's other losses' pull; 0 for none.
        adversarial_from: share of the run after which it begins.
        adversarial_channels: of the discriminator's first layer.
    """

    still_weight: float = 0.1
    sticky: bool = True
    perceptual_weight: float = 0.0
    perceptual_file: str | None = None
    perceptual_sha256: str | None = None
    adversarial_weight: float = 0.0
    adversarial_from: float = 0.5
    adversarial_channels: int = 32


@dataclass(frozen=True)
class SoundCodecSettings:
    """Autoencoder of one frame's slice of log-mel around a multi-scale quantiser.

    Attributes:
        channels: of the hidden layers.
        num_mels: mel bands.
        slices_per_frame: spectra in one frame's time.
        fft_samples: length of a spectrum's window.
        floor: mel magnitudes below this are silence; set it above the noise of the recording, or the codes (and the
            model) are busy with noise.
        quantizer: grids are (1, slices).
    """

    channels: int = 256
    num_mels: int = 48
    slices_per_frame: int = 8
    fft_samples: int = 512
    floor: float = 0.02
    quantizer: QuantizerSettings = field(
        default_factory=lambda: QuantizerSettings(grids=((1, 1), (1, 2), (1, 4)), vocabulary=256, dim=16)
    )
