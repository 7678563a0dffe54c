"""The frame decoder: the codes of the next frame, coarse to fine, given the state of the last frame.

All codes of a scale, of every plane at every place, are predicted in parallel from the scales already decoded (VAR:
Tian et al. 2024), picture first, then sound. A place is one token, however many planes it has.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from worldmodel.attention import full_precision, grid_positions, rotary_turns
from worldmodel.blocks import Block
from worldmodel.codecs.dct_latents import CoefficientLatents
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.layout import Scale
from worldmodel.modules import Modules
from worldmodel.settings import TransformerSettings
from worldmodel.sight import Sight

SPREAD_DIM = 64

# What knows the latents of codes.
Quantizer = MultiScaleQuantizer | CoefficientLatents


@dataclass
class DecoderCache:
    """What is kept while a frame is decoded.

    Attributes:
        layers: keys and values of the state and of the scales decoded so far.
        num_scales: number of those scales.
        before: the previous frame's latents of every modality, if they are known.
        old: of every modality begun, the previous frame's latent and the spread state.
        latents: of every modality begun, what the scales before the last of those add up to.
    """

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    num_scales: int = 0
    before: list[Tensor] | None = None
    old: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class ScalePrediction:
    """What the decoder says about one scale of the next frame.

    Attributes:
        logits: (item, code, vocabulary).
        error: squared distance of the guessed residual to the true one, in units of the codebook's spread, averaged
            over channels, (item, code); the codes of a place share its residual.
    """

    logits: Tensor
    error: Tensor


@dataclass(frozen=True)
class Asked:
    """Every scale of a frame on its way through the decoder.

    Attributes:
        tokens: of every scale, (item, place, dim).
        left_overs: what the previous frame's latent would leave over for it, (item, place, latent).
        residuals: what the true frame leaves over for it, (item, place, latent).
    """

    tokens: list[Tensor]
    left_overs: list[Tensor]
    residuals: list[Tensor]


class ModalityInput(nn.Module):
    """Input tokens of one modality's scales: what is decoded so far, the previous frame, and the state in place."""

    def __init__(self, quantizer: Quantizer, dim: int, state_grid: tuple[int, int]) -> None:
        super().__init__()
        pyramid = quantizer.pyramid
        self.state_grid = state_grid
        self.unfold = (pyramid.grid[0] // state_grid[0], pyramid.grid[1] // state_grid[1])
        self.spread = nn.Linear(dim, SPREAD_DIM * self.unfold[0] * self.unfold[1])
        # Neighbours too: what moves comes from the next place.
        self.mix = nn.Conv2d(SPREAD_DIM + 3 * quantizer.dim, dim, 3, padding=1)
        # Rows of it that stand for each scale, or for each of its codes where no place tells them apart.
        whole = pyramid.whole_frame
        self.parts = pyramid.slices if whole else tuple(slice(k, k + 1) for k in range(len(pyramid.scales)))
        self.scale = nn.Parameter(torch.randn(self.parts[-1].stop, dim) * 0.02)

    def spread_state(self, state: Float[Tensor, "item token dim"]) -> Float[Tensor, "item channel row column"]:
        """State tokens of this modality, unfolded to the latent's grid."""
        cells = self.spread(state).unflatten(1, self.state_grid).unflatten(-1, (SPREAD_DIM, *self.unfold))
        return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def forward(
        self,
        index: int,
        maps: Float[Tensor, "item channel row column"],
        old_code: Float[Tensor, "item place latent"],
    ) -> Float[Tensor, "item place dim"]:
        """Tokens of scale `index`."""
        old = old_code.transpose(1, 2).unflatten(2, maps.shape[-2:])
        return self.mix(torch.cat((maps, old), 1)).flatten(2).transpose(1, 2) + self.scale[self.parts[index]]


class Readout(nn.Module):
    """Logits of one scale's codes, from a guess of the next latent and with a copy path, plane by plane.

    A code is the nearest entry to a residual, so the logits are the negative squared distances of a guessed residual to
    the codebook: what the previous frame's latent would leave over, plus a learned change. The copy path is a learned
    gate that adds to the logit of the code that stood at the same place in the previous frame (after pointer
    networks: See et al. 2017, "Get To The Point"). A plain linear readout corrects both. The planes of a place share
    the guess; each has its own codebook, gate and linear readout.
    """

    def __init__(self, dim: int, latent_dim: int, scale: Scale, copy_bias: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.change = nn.Linear(dim, latent_dim)
        self.correct = nn.Linear(dim, scale.planes * scale.vocabulary)
        self.gate = nn.Linear(dim, scale.planes)
        self.log_sharpness = nn.Parameter(torch.full((1,), -1.0))
        self.copy_bias = copy_bias

    def initialise(self) -> None:
        """Start as a copy of the previous frame's latent and codes."""
        for linear in (self.change, self.correct, self.gate):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.constant_(self.gate.bias, self.copy_bias)

    def forward(
        self,
        x: Float[Tensor, "item place dim"],
        left_over: Float[Tensor, "item place latent"],
        vectors: Float[Tensor, "plane vocabulary latent"],
        previous: Int[Tensor, "item code"],
    ) -> tuple[Float[Tensor, "item code vocabulary"], Float[Tensor, "item place latent"]]:
        """Logits, and the guessed residual in units of the codebook's spread; both in fp32."""
        x = self.norm(x)
        spread, entries = spread_of(vectors), vectors.flatten(0, 1)
        guess = left_over / spread + self.change(x).float()
        sharpness = self.log_sharpness.exp() / spread
        with full_precision(x.device):  # differences of distances need all bits
            bias = self.correct.bias - 0.5 * sharpness / spread * entries.square().sum(1)
            logits = F.linear(x.float().flatten(0, 1), self.correct.weight.float(), bias)
            # In place: logits are the largest tensors of a step.
            logits.addmm_((sharpness * guess).flatten(0, 1), entries.T)
        logits = logits.unflatten(0, x.shape[:2]).unflatten(2, vectors.shape[:2]).transpose(1, 2).flatten(1, 2)
        copied = self.gate(x).float().transpose(1, 2).flatten(1)
        return logits.scatter_add_(2, previous[..., None], copied[..., None]), guess

    def products_flops(self, x: Tensor, left_over: Tensor, vectors: Tensor, previous: Tensor) -> int:
        """Operations of the logits, whose layer is not called as one."""
        planes, vocabulary, latent_dim = vectors.shape
        return 2 * x.shape[0] * x.shape[1] * planes * vocabulary * (latent_dim + x.shape[2])


def spread_of(vectors: Float[Tensor, "plane vocabulary latent"]) -> Float[Tensor, ""]:
    """Root mean square of a codebook's entries, the unit in which residuals are guessed."""
    return vectors.square().mean().sqrt().clamp(min=1e-6)


def columns_of(counts: list[int]) -> list[slice]:
    """Where parts of so many codes lie that follow each other."""
    return [slice(sum(counts[:k]), sum(counts[: k + 1])) for k in range(len(counts))]


class FrameDecoder(nn.Module):
    """A shallow transformer that runs once per scale."""

    def __init__(
        self,
        settings: TransformerSettings,
        quantizers: list[Quantizer],
        state_grids: list[tuple[int, int]],
        state_places: Float[Tensor, "token 2"],
        copy_bias: float,
    ) -> None:
        super().__init__()
        dim, head_dim = settings.dim, settings.dim // settings.num_heads
        # A tuple, so that the quantisers are registered once, in the model that owns them.
        self.quantizers = tuple(quantizers)
        self.levels = [(m, k) for m, q in enumerate(quantizers) for k in range(len(q.pyramid.scales))]
        self.scales: list[Scale] = [quantizers[m].pyramid.scales[k] for m, k in self.levels]
        self.inputs = Modules[ModalityInput](
            ModalityInput(q, dim, g) for q, g in zip(quantizers, state_grids, strict=True)
        )
        self.blocks = Modules[Block](Block(dim, settings.num_heads, settings.attention) for _ in range(settings.depth))
        self.readouts = Modules[Readout](
            Readout(dim, quantizers[m].dim, scale, copy_bias)
            for (m, _), scale in zip(self.levels, self.scales, strict=True)
        )
        self.sizes = [scale.num_places for scale in self.scales]
        # Columns of every scale, and of every modality, in a frame's codes.
        self.slices = columns_of([scale.num_codes for scale in self.scales])
        self.parts = columns_of([quantizer.pyramid.num_codes for quantizer in quantizers])
        places = torch.cat([grid_positions(scale.height, scale.width) for scale in self.scales])
        still = torch.zeros(len(places)), torch.zeros(len(state_places))
        self.turns: Tensor
        self.state_turns: Tensor
        self.register_buffer("turns", rotary_turns(still[0], places, head_dim), persistent=False)
        self.register_buffer("state_turns", rotary_turns(still[1], state_places, head_dim), persistent=False)
        self.sight = Sight.of_scales(self.sizes, len(state_places))

    def forward(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
    ) -> list[ScalePrediction]:
        """Every scale of the frame after `state`, each given the true coarser scales in `codes`."""
        asked = self.ask(state, previous, codes)
        x = torch.cat(asked.tokens, 1)
        for block, past in zip(self.blocks, self._remember(state), strict=True):
            x = block(x, self.turns, past, self.sight)
        return self.answer(x, asked, previous)

    def ask(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
    ) -> Asked:
        """What enters the transformer for every scale, given the true coarser scales in `codes`."""
        asked = Asked([], [], [])
        for modality, (quantizer, part) in enumerate(zip(self.quantizers, self.parts, strict=True)):
            old, truth = self._old(modality, state, previous), quantizer.embed(codes[:, part])
            for index, partial in enumerate(quantizer.partials(codes[:, part])):
                token, left_over = self._inputs(modality, index, partial, previous, old)
                residual = quantizer.left_over(truth, partial, index)
                asked.tokens.append(token)
                asked.left_overs.append(left_over)
                asked.residuals.append(residual.flatten(2).transpose(1, 2))
        return asked

    def answer(
        self, x: Float[Tensor, "item place dim"], asked: Asked, previous: Int[Tensor, "item code"]
    ) -> list[ScalePrediction]:
        """What leaves the transformer, read out for every scale."""
        predictions = []
        for level, out in enumerate(x.split(self.sizes, 1)):
            logits, guess = self.read(level, out, asked.left_overs[level], previous)
            error = (guess - asked.residuals[level] / spread_of(self.vectors(level))).square().mean(-1)
            predictions.append(ScalePrediction(logits, error.repeat(1, self.scales[level].planes)))
        return predictions

    def start(self, state: Float[Tensor, "item token dim"], before: list[Tensor] | None = None) -> DecoderCache:
        """Begin a frame; `before` are the previous frame's latents, where they need not be worked out again."""
        return DecoderCache(self._remember(state), before=before)

    def step(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
        cache: DecoderCache,
    ) -> Float[Tensor, "item scale_code vocabulary"]:
        """Logits of the next scale, whose coarser scales are already in `codes` (finer columns are not read)."""
        level = cache.num_scales
        x, left_over = self.scale_inputs(state, previous, codes, cache)
        turns = self.turns.split(self.sizes)[level]
        for number, block in enumerate(self.blocks):
            x, cache.layers[number] = block.extend(x, turns, cache.layers[number], None)
        cache.num_scales += 1
        return self.read(level, x, left_over, previous)[0]

    def scale_inputs(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
        cache: DecoderCache,
    ) -> tuple[Float[Tensor, "item place dim"], Float[Tensor, "item place latent"]]:
        """Tokens of the next scale, and what the previous frame's latent would leave over for it; once a scale."""
        level = cache.num_scales
        modality, index = self.levels[level]
        quantizer = self.quantizers[modality]
        self._add_scales(codes, cache, level)
        if index == 0:
            cache.old.append(self._old(modality, state, previous, cache.before))
            cache.latents.append(quantizer.nothing(len(codes)))
        partial = quantizer.seen_by(cache.latents[modality], index)
        return self._inputs(modality, index, partial, previous, cache.old[modality])

    def finish(
        self, codes: Int[Tensor, "item code"], cache: DecoderCache
    ) -> list[Float[Tensor, "item channel row column"]]:
        """Latents of the finished frame, of every modality; `codes` may hold scales that were not decoded."""
        self._add_scales(codes, cache, len(self.scales))
        return cache.latents

    def _add_scales(self, codes: Tensor, cache: DecoderCache, stop: int) -> None:
        """Bring the latents from the scale before the last one decoded up to the scale before `stop`."""
        for level in range(max(0, cache.num_scales - 1), stop):
            modality, index = self.levels[level]
            if modality == len(cache.latents):
                cache.latents.append(self.quantizers[modality].nothing(len(codes)))
            part = codes[:, self.slices[level]]
            cache.latents[modality] = self.quantizers[modality].add_scale(cache.latents[modality], part, index)

    @property
    def finest_level(self) -> int:
        """Number of the picture's finest scale among all scales."""
        return len(self.quantizers[0].pyramid.scales) - 1

    def vectors(self, level: int) -> Float[Tensor, "plane vocabulary latent"]:
        """Codebooks of one scale."""
        modality, index = self.levels[level]
        return self.quantizers[modality].vectors(index)

    def read(
        self,
        level: int,
        x: Float[Tensor, "item place dim"],
        left_over: Float[Tensor, "item place latent"],
        previous: Int[Tensor, "item code"],
    ) -> tuple[Float[Tensor, "item scale_code vocabulary"], Float[Tensor, "item place latent"]]:
        """Logits of one scale, and the guessed residual; `previous` are all codes of the previous frame."""
        return self.readouts[level](x, left_over, self.vectors(level), previous[:, self.slices[level]])

    def _remember(self, state: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [block.attention.keys_values(state, self.state_turns) for block in self.blocks]

    def _old(
        self, modality: int, state: Tensor, previous: Tensor, before: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        module = self.inputs[modality]
        counts = [m.state_grid[0] * m.state_grid[1] for m in self.inputs]
        mine = state.split(counts, 1)[modality]
        codes = previous[:, self.parts[modality]]
        return self.quantizers[modality].embed(codes) if before is None else before[modality], module.spread_state(mine)

    def _inputs(
        self, modality: int, index: int, partial: Tensor, previous: Tensor, old: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Tokens of one scale, and what the previous frame's latent would leave over for it."""
        columns, quantizer = self.slices[self.levels.index((modality, index))], self.quantizers[modality]
        old_code = quantizer.lookup(previous[:, columns], index)
        left_over = quantizer.left_over(old[0], partial, index)
        maps = torch.cat((partial, left_over, quantizer.to_scale(old[1], index)), 1)
        tokens = self.inputs[modality](index, maps, old_code)
        return tokens, left_over.flatten(2).transpose(1, 2)
