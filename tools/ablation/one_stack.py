"""One stack of blocks over all tokens of every frame, as VAR's heirs for video have it.

After VAR (Tian et al. 2024) and InfinityStar (Liu et al. 2025): a frame is its finished tokens and then the tokens of
all scales of the next frame; each sees everything that comes before it in the window, at every depth.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tools.ablation.candidate import Candidate, silent
from worldmodel.attention import grid_positions, rotary_turns
from worldmodel.decoder import DecoderCache
from worldmodel.model import WorldModel
from worldmodel.objective import NextFrame
from worldmodel.rollouts.next_frame import choose_codes, draw_numbers
from worldmodel.settings import SamplingSettings
from worldmodel.sight import Sight

Layers = list[tuple[Tensor, Tensor]]


class OneStack(Candidate):
    """The blocks are those of the model's trunk; its decoder, which has none, makes tokens and reads them out."""

    def __init__(self, model: WorldModel) -> None:
        """Take a model whose decoder has no blocks."""
        super().__init__(model)
        assert not len(model.decoder.blocks), "all blocks are in the trunk"
        self.units = [model.trunk.num_tokens, *model.decoder.sizes]
        scales = [grid_positions(scale.height, scale.width) for scale in model.decoder.scales]
        self.unit_places = [model.trunk.places, *scales]

    def drawn_frames(self, codes: Int[Tensor, "batch frame code"]) -> None:
        """All: leaving out a frame would leave a hole in the stack."""
        return

    def predict(self, codes: Int[Tensor, "batch frame code"], frames: Tensor | None = None) -> NextFrame:
        """All frames in one pass; see `Candidate.predict`."""
        assert frames is None, "all frames are predicted"
        previous, target = codes[:, :-1].flatten(0, 1), codes[:, 1:].flatten(0, 1)
        embedded = self.model.embed(codes[:, :-1], silent(codes)).flatten(0, 1)
        asked = self.model.decoder.ask(embedded, previous, target)
        shape = (len(codes), codes.shape[1] - 1)
        x = torch.cat((embedded, *asked.tokens), 1).unflatten(0, shape)
        out, _ = self._run(x.flatten(1, 2), self._turns(0, shape[1]), [], self._sight(shape[1]))
        scales = out.unflatten(1, x.shape[1:3])[:, :, self.units[0] :].flatten(0, 1)
        counted = torch.ones_like(codes[:, 1:], dtype=torch.bool)
        return NextFrame.of(self.model.decoder.answer(scales, asked, previous), previous, target, counted)

    @torch.no_grad()
    def roll_out(
        self, prompt: Int[Tensor, "batch frame code"], sampling: SamplingSettings, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "batch code"]]:
        """Endless frames after the prompt, with keys and values of the window kept."""
        layers: Layers = self._read(prompt)
        time, before, previous = prompt.shape[1] - 1, prompt[:, -2] if prompt.shape[1] > 1 else None, prompt[:, -1]
        keep = (self.model.settings.window_frames - 1) * sum(self.units)
        while True:
            layers = [(key[:, :, -keep:], value[:, :, -keep:]) for key, value in layers] if keep else []
            embedded = self.model.embed(previous[:, None], silent(prompt), before)[:, 0]
            codes, layers = self._imagine(embedded, previous, time, layers, sampling, generator)
            yield codes
            time, before, previous = time + 1, previous, codes

    def _read(self, prompt: Tensor) -> Layers:
        """Keys and values of all frames of a prompt but the last."""
        if prompt.shape[1] == 1:
            return []
        previous, target = prompt[:, :-1].flatten(0, 1), prompt[:, 1:].flatten(0, 1)
        embedded = self.model.embed(prompt[:, :-1], silent(prompt)).flatten(0, 1)
        tokens = self.model.decoder.ask(embedded, previous, target).tokens
        x = torch.cat((embedded, *tokens), 1).unflatten(0, (len(prompt), -1)).flatten(1, 2)
        num_frames = prompt.shape[1] - 1
        return self._run(x, self._turns(0, num_frames), [], self._sight(num_frames))[1]

    def _imagine(
        self,
        embedded: Float[Tensor, "batch token dim"],
        previous: Int[Tensor, "batch code"],
        time: int,
        layers: Layers,
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> tuple[Int[Tensor, "batch code"], Layers]:
        """The frame after `previous`, which is that of `time`; the keys and values of both are added."""
        decoder, codes, cache = self.model.decoder, previous.clone(), DecoderCache()
        turns = self._turns(time, 1).split(self.units)
        threshold, numbers = draw_numbers(codes, generator).tensor_split([1], 1)
        _, layers = self._run(embedded, turns[0], layers, None)
        for level, columns in enumerate(decoder.slices):
            x, left_over = decoder.scale_inputs(embedded, previous, codes, cache)
            x, layers = self._run(x, turns[level + 1], layers, None)
            cache.num_scales += 1
            logits = decoder.read(level, x, left_over, previous)[0]
            codes[:, columns] = choose_codes(
                decoder, level, logits, previous[:, columns], sampling, threshold, numbers[:, columns]
            )
        return codes, layers

    def _run(self, x: Tensor, turns: Tensor, past: Layers, sight: Sight | None) -> tuple[Tensor, Layers]:
        layers = []
        for number, block in enumerate(self.model.trunk.blocks):
            x, kept = block.extend(x, turns, past[number] if past else None, sight)
            layers.append(kept)
        return self.model.trunk.norm(x), layers

    def _sight(self, num_frames: int) -> Sight:
        window, total = self.model.settings.window_frames, sum(self.units)
        sizes = self.units * num_frames
        starts = [max(0, frame - window + 1) * total for frame in range(num_frames) for _ in self.units]
        stops = torch.tensor(sizes).cumsum(0).tolist()
        return Sight(tuple(sizes), tuple(starts), tuple(stops))

    def _turns(self, start: int, num_frames: int) -> Tensor:
        """Finished tokens have the time of their frame, those of scales that of the next one."""
        later = torch.tensor([0, *[1] * (len(self.units) - 1)]).repeat_interleave(torch.tensor(self.units))
        times = torch.arange(start, start + num_frames)[:, None] + later
        places = torch.cat(self.unit_places).repeat(num_frames, 1)
        return rotary_turns(times.flatten().double(), places, self.model.trunk.head_dim)
