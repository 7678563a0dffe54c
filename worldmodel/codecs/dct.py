"""Picture codec without training: the codes are JPEG's coefficients, the scales are bands of frequencies."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from streams.clip import to_float, to_uint8
from streams.settings import ClipSettings
from worldmodel.codecs.dct_latents import CoefficientLatents
from worldmodel.codecs.dct_quantizer import BITS_TOLERANCE, largest_values, nearest_quality, quantise
from worldmodel.codecs.dct_scales import BandLayout, Coefficients, differences, sums
from worldmodel.codecs.dct_transform import BlockTransform
from worldmodel.codecs.in_order import encode_views, frame_by_frame
from worldmodel.codecs.jpeg_bits import jpeg_bits
from worldmodel.codecs.jpeg_tables import quantization_table
from worldmodel.layout import Pyramid, Scale
from worldmodel.settings import DctSettings


class PictureDCT(nn.Module):
    """Frames to codes and back, losing what JPEG of the same quality loses and nothing more.

    The codes of a frame are the values of `dct_scales`, of every quality in turn; with `bits_per_frame` the frame's own
    quality comes first, as a scale of one code. All of it is whole numbers, so codes are the same on every device.

    Raises:
        ValueError: a setting is out of range, or frames do not consist of whole blocks.
    """

    kind = "picture"
    family = "dct"
    fingerprint: str | None = None  # set when a codec is loaded; no cache is made without

    def __init__(self, settings: DctSettings, clips: ClipSettings) -> None:
        super().__init__()
        self.settings, self.clips = settings, clips
        self.transform = BlockTransform(settings.block, settings.chroma)
        _check(settings, (clips.height, clips.width), self.transform.side)
        grid = (clips.height // settings.block, clips.width // settings.block)
        side = self.transform.side
        self.layout = BandLayout(
            grid, (clips.height // side, clips.width // side), (*settings.bands, settings.block**2)
        )
        self.adapted = settings.bits_per_frame > 0
        qualities = settings.qualities
        self.qualities = tuple(range(qualities[0], qualities[1] + 1)) if self.adapted else qualities
        tables = [
            [quantization_table(quality, chroma, settings.block) for chroma in (False, True)]
            for quality in self.qualities
        ]
        self.register_buffer("tables", torch.from_numpy(np.array(tables)))
        self.tables: Tensor
        # Where the quality is adapted to the frame, the finest steps decide how large values can be.
        finest = np.array(tables[-1:] if self.adapted else tables)
        bounds = largest_values(self.transform.peaks / settings.block, finest, settings.sticky_margin)
        scales = [scale for layer in bounds for scale in self.layout.scales(*layer)]
        self.pyramid = Pyramid((*([Scale(1, 1, len(self.qualities))] if self.adapted else []), *scales))
        self.quantizer = CoefficientLatents(self.pyramid)
        offsets = [torch.full((scale.num_codes,), scale.vocabulary // 2) for scale in scales]
        self.register_buffer("offsets", torch.cat(offsets), persistent=False)
        self.offsets: Tensor

    @torch.no_grad()
    def encode(
        self, frames: Float[Tensor, "batch frame 3 height width"], previous: Int[Tensor, "batch code"] | None = None
    ) -> Int[Tensor, "batch frame code"]:
        """Codes of clips in the order of their frames; `previous` are the codes of the frame before the clip."""
        codes = []
        for frame in self.coefficients(frames).unbind(1):
            previous = self.encode_frame(frame, previous)
            codes.append(previous)
        return torch.stack(codes, 1)

    @torch.no_grad()
    def encode_views(
        self,
        frames: Float[Tensor, "batch frame 3 height width"],
        lengths: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Int[Tensor, "batch frame code"], Int[Tensor, "batch frame code"], Int[Tensor, "batch half code"]]:
        """Codes of clips as they are, reversed, and of every second frame, each encoded in its own order.

        Args:
            frames: of clips, from -1 to 1.
            lengths: of every view, how many of its first frames are wanted of each clip; all if None.
        """
        encode = frame_by_frame(self.encode_frame, self.pyramid.num_codes)
        return encode_views(encode, self.coefficients(frames), lengths)

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "batch frame code"], num_scales: int | None = None
    ) -> Float[Tensor, "batch frame 3 height width"]:
        """Frames of codes, from the first `num_scales` scales (all by default)."""
        flat = codes.flatten(0, 1)
        values = self.values(flat)
        if num_scales is not None:
            num_known = sum(scale.num_codes for scale in self.pyramid.scales[:num_scales]) - int(self.adapted)
            values.flatten(1)[:, max(0, num_known) :] = 0
        steps = self._steps_at(flat[:, 0]) if self.adapted else self._layer_steps()
        luma, chroma = self.layout.unflatten((values * steps).sum(1))
        return to_float(self.transform.inverse(luma, chroma)).unflatten(0, codes.shape[:2])

    @torch.no_grad()
    def coefficients(
        self, frames: Float[Tensor, "batch frame 3 height width"]
    ) -> Int[Tensor, "batch frame coefficient"]:
        """Coefficients before quantisation, times the side of a block, in the order of the codes of one quality."""
        luma, chroma = self.transform(to_uint8(frames.flatten(0, 1)))
        return self.layout.flatten(luma, chroma).long().unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def bits(self, codes: Int[Tensor, "*shape code"]) -> Int[Tensor, "*shape"]:
        """Bits of every frame when JPEG's entropy coder writes its codes; qualities one after another."""
        flat = codes.flatten(0, -2)
        return self._value_bits(self.values(flat)).unflatten(0, codes.shape[:-1])

    @torch.no_grad()
    def encode_frame(
        self, coefficients: Int[Tensor, "item coefficient"], previous: Int[Tensor, "item code"] | None
    ) -> Int[Tensor, "item code"]:
        """Codes of one frame of several clips; `previous` are those of the frame before, to which codes stick."""
        if self.adapted:
            return self._encode_adapted(coefficients, previous)
        old = None if previous is None else self.values(previous)
        return self._codes(self._quantised(coefficients, self._layer_steps(), old))

    def values(self, codes: Int[Tensor, "item code"]) -> Int[Tensor, "item layer coefficient"]:
        """Quantised values of codes, in one layer for every quality that refines."""
        values = codes[:, int(self.adapted) :] - self.offsets
        self._replace_means(values, sums)
        return values.unflatten(1, (self.num_layers, -1))

    def signed(self, codes: Integer[np.ndarray, "*shape code"]) -> list[Coefficients]:
        """What codes of frames stand for, layer by layer: values, or differences of the means."""
        flat = torch.from_numpy(codes.reshape(-1, codes.shape[-1]).astype(np.int64))[:, int(self.adapted) :]
        layers = (flat - self.offsets.cpu()).unflatten(1, (self.num_layers, -1))
        return [self.layout.unflatten(layer) for layer in layers.unbind(1)]

    @property
    def num_layers(self) -> int:
        """Qualities that refine each other."""
        return 1 if self.adapted else len(self.qualities)

    def _codes(self, values: Tensor) -> Tensor:
        flat = values.flatten(1).clone()
        self._replace_means(flat, differences)
        return flat + self.offsets

    def _replace_means(self, flat: Tensor, by: Callable[[Tensor, int], Tensor]) -> None:
        """What stands for the means of blocks, which the first two scales of the first layer are, in place."""
        if self.settings.dc == "value":
            return
        start = 0
        for scale in self.pyramid.scales[int(self.adapted) :][:2]:
            part = slice(start, start + scale.num_codes)
            planes = flat[:, part].unflatten(1, (scale.planes, scale.height, scale.width))
            flat[:, part] = by(planes, scale.vocabulary // 2).flatten(1)
            start = part.stop

    def _layer_steps(self) -> Int[Tensor, "1 layer coefficient"]:
        """Steps of the tables, quality by quality."""
        return self.layout.spread(self.tables)[None]

    def _steps_at(self, quality: Int[Tensor, " item"]) -> Int[Tensor, "item 1 coefficient"]:
        """Steps at every frame's own quality, counted from the lowest."""
        return self.layout.spread(self.tables[quality])[:, None]

    def _quantised(self, coefficients: Tensor, steps: Tensor, old: Tensor | None) -> Tensor:
        return quantise(coefficients, steps * self.settings.block, old, self.settings.sticky_margin)

    def _encode_adapted(self, coefficients: Tensor, previous: Tensor | None) -> Int[Tensor, "item code"]:
        """Codes at the previous frame's quality where they still meet the target, else at the one nearest to it."""
        if previous is None:
            quality = self._searched(coefficients)
            values = self._quantised(coefficients, self._steps_at(quality), None)
        else:
            quality = previous[:, 0].clone()
            values = self._quantised(coefficients, self._steps_at(quality), self.values(previous))
            far = ~self._near_target(values)
            if far.any():
                found = self._searched(coefficients[far])
                afresh = self._quantised(coefficients[far], self._steps_at(found), None)
                # Where the target is out of reach, the quality stays at its end, and old values may stay too.
                better = (found != quality[far]) | self._near_target(afresh)
                quality[far] = torch.where(better, found, quality[far])
                values[far] = torch.where(better[:, None, None], afresh, values[far])
        return torch.cat((quality[:, None], self._codes(values)), 1)

    def _searched(self, coefficients: Tensor) -> Int[Tensor, " item"]:
        def bits_at(quality: Tensor) -> Tensor:
            return self._value_bits(self._quantised(coefficients, self._steps_at(quality), None))

        return nearest_quality(bits_at, len(self.qualities), self.settings.bits_per_frame, coefficients)

    def _value_bits(self, values: Tensor) -> Int[Tensor, " item"]:
        return torch.stack([jpeg_bits(*self.layout.unflatten(layer)) for layer in values.unbind(1)]).sum(0)

    def _near_target(self, values: Tensor) -> Bool[Tensor, " item"]:
        target = self.settings.bits_per_frame
        return (self._value_bits(values) - target).abs() <= BITS_TOLERANCE * target


def _check(settings: DctSettings, size: tuple[int, int], side: int) -> None:
    if size[0] % side or size[1] % side:
        raise ValueError(
            f"frames of {size[0]}x{size[1]} are not whole blocks: with dct.block={settings.block} and "
            f"dct.chroma={settings.chroma}, height and width must be multiples of {side}; change clips.height/width"
        )
    qualities, bands = list(settings.qualities), list(settings.bands)
    if not qualities or qualities != sorted(set(qualities)) or not 1 <= qualities[0] <= qualities[-1] <= 100:
        raise ValueError(f"dct.qualities={qualities} must rise, from 1 at least to 100 at most")
    if bands != sorted(set(bands)) or bands[:1] != [1] or bands[-1] >= settings.block**2:
        raise ValueError(
            f"dct.bands={bands} must begin with 1 (the means of blocks), rise, and stop below the "
            f"{settings.block**2} frequencies of a block"
        )
    if settings.bits_per_frame < 0 or settings.sticky_margin < 0:
        raise ValueError(
            f"dct.bits_per_frame={settings.bits_per_frame} and dct.sticky_margin={settings.sticky_margin} "
            "must be 0 or more"
        )
    if settings.bits_per_frame and len(qualities) != 2:
        raise ValueError(
            f"dct.qualities={qualities} must be the lowest and the highest quality of a frame where "
            f"dct.bits_per_frame={settings.bits_per_frame}: give two"
        )
