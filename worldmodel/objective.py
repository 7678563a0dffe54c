"""What a run of the world model minimises: the next frame's codes, and the heads on views of the clip."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.blocks import Block, hidden_of
from worldmodel.cache.latents import CodeBatch
from worldmodel.decoder import ScalePrediction
from worldmodel.frame_group import FrameGroup
from worldmodel.heads.arrow_of_time import ArrowOfTime
from worldmodel.heads.correspondence import Correspondence
from worldmodel.heads.flow import Flow
from worldmodel.heads.readout import HeadResult
from worldmodel.heads.speed import Speed
from worldmodel.model import WorldModel
from worldmodel.rollouts.next_frame import imagine_frame
from worldmodel.settings import HeadSettings, SamplingSettings

HEADS = ("flow", "speed", "arrow_of_time", "correspondence")
# Channels of the trunk at which the default learning rates were chosen.
BASE_DIM = 128


@dataclass(frozen=True)
class NextFrame:
    """Prediction of the next frame's codes.

    Attributes:
        nats: cross-entropy of every code, (batch, frame, code).
        counted: codes that exist (a clip without sound has no codes of sound), (batch, frame, code).
        changed: codes that differ from the frame before, (batch, frame, code).
        right: whether the most likely code is the true one, (batch, frame, code).
        error: squared distance of the guessed residual to the true one, (batch, frame, code).
        log_z: logarithm of what the softmax divides by, (batch, frame, code).
    """

    nats: Tensor
    counted: Tensor
    changed: Tensor
    right: Tensor
    error: Tensor
    log_z: Tensor

    @classmethod
    def of(
        cls,
        predictions: Sequence[ScalePrediction],
        previous: Int[Tensor, "item code"],
        target: Int[Tensor, "item code"],
        counted: Bool[Tensor, "batch frame code"],
    ) -> "NextFrame":
        """Hold what was predicted of all scales against the codes that came; an item is a frame of the batch."""
        parts = target.split([x.error.shape[1] for x in predictions], 1)
        pairs = list(zip(predictions, parts, strict=True))
        nats = [cross_entropy(x.logits, part) for x, part in pairs]
        # The cross-entropy is the logarithm of the sum of all exponentials without the logit of the target.
        log_z = [n + x.logits.gather(2, part[..., None])[..., 0] for n, (x, part) in zip(nats, pairs, strict=True)]
        right = [x.logits.argmax(-1) == part for x, part in pairs]
        shape = counted.shape[:2]
        return cls(
            torch.cat(nats, 1).unflatten(0, shape),
            counted,
            (previous != target).unflatten(0, shape),
            torch.cat(right, 1).unflatten(0, shape),
            torch.cat([x.error for x in predictions], 1).unflatten(0, shape),
            torch.cat(log_z, 1).unflatten(0, shape),
        )

    def bits_per_frame(self) -> Float[Tensor, ""]:
        """Mean number of bits to tell the next frame's codes."""
        return (self.nats * self.counted).sum(-1).mean() / math.log(2)


def cross_entropy(
    logits: Float[Tensor, "item code vocabulary"], target: Int[Tensor, "item code"]
) -> Float[Tensor, "item code"]:
    """Nats of every code."""
    # In rows: with the vocabulary in the middle, as torch wants it of more axes, all logits would be copied.
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)


class WorldObjective(nn.Module):
    """The world model with its heads; `forward` gives the loss of a batch and what to log.

    Attributes:
        share_done: share of the run that is done, told by the loop.
        group: processes that share every clip with this one, if there are any.
    """

    def __init__(self, model: WorldModel, heads: HeadSettings) -> None:
        super().__init__()
        self.model, self.weights, self.share_done = model, heads, 0.0
        self.group: FrameGroup | None = None
        dim, patch = model.settings.trunk.dim, model.settings.patch
        pyramid = model.decoder.quantizers[0].pyramid
        rows, columns = pyramid.grid
        has_sound = len(model.decoder.quantizers) > 1
        self.heads = nn.ModuleDict()
        if heads.flow > 0 and pyramid.whole_frame:
            raise ValueError(
                f"heads.flow={heads.flow:g} reads motion from the states of places in the frame, but every code of "
                "this picture codec is of the whole frame: set heads.flow to 0, or give a codec of family vq or hybrid"
            )
        if heads.flow > 0:
            self.heads["flow"] = Flow(dim, (rows // patch, columns // patch))
        if heads.speed > 0:
            self.heads["speed"] = Speed(dim)
        if heads.arrow_of_time > 0:
            self.heads["arrow_of_time"] = ArrowOfTime(dim)
        if heads.correspondence > 0 and has_sound:
            self.heads["correspondence"] = Correspondence(dim)

    @property
    def blocks(self) -> list[Block]:
        """The transformers' blocks."""
        return self.model.blocks

    def recompute_activations(self, on: bool) -> None:
        """Keeps only what enters a block, and runs the block again in the backward pass."""
        for block in self.blocks:
            block.recompute = on

    def compile_blocks(self, on: bool) -> None:
        """Runs what is before and after the attention of a block as compiled code while it is trained."""
        for block in self.blocks:
            block.compiled = on

    def share_frames(self, group: FrameGroup | None) -> None:
        """Lets a group of processes share every clip: the trunk's frames are divided, and then the decoder's.

        All processes of a group must be given the same batch and the same random states.

        Raises:
            ValueError: the trunk's heads do not divide among the processes.
        """
        num_heads = self.model.settings.trunk.num_heads
        if group is not None and num_heads % group.size:
            raise ValueError(
                f"model.trunk.num_heads={num_heads} do not divide among the {group.size} processes of "
                "training.sequence_parallel"
            )
        self.group = group

    def check_cut(self, size: int) -> None:
        """Refuses a number of processes among which the blocks' matrices do not divide.

        Raises:
            ValueError: names what does not.
        """
        settings = self.model.settings
        hidden = hidden_of(settings.trunk.dim)
        for count, what in (
            (settings.trunk.num_heads, f"model.trunk.num_heads={settings.trunk.num_heads}"),
            (settings.decoder.num_heads, f"model.decoder.num_heads={settings.decoder.num_heads}"),
            (hidden, f"the {hidden} hidden channels of model.trunk.dim={settings.trunk.dim}"),
        ):
            if count % size:
                raise ValueError(f"training.tensor_parallel={size} does not divide {what}: change one of them")

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices of the transformers' blocks; training.tensor_parallel cuts them."""
        return [parameter for block in self.blocks for parameter in block.parameters() if parameter.ndim == 2]

    def wide_matrices(self) -> tuple[list[nn.Parameter], float]:
        """Matrices that sum over the trunk's channels, and what Adam's learning rate is multiplied by for them.

        Adam moves every entry by its learning rate, and a sum over twice as many channels moves twice as far. So a rate
        that was good at one width is good at another where it falls as the width grows (maximal update
        parametrisation: Yang et al. 2022, "Tensor Programs V"). Convolutions read latents, whose number stays.
        """
        parts = (self.model.embeddings, self.model.trunk, self.model.decoder, self.heads)
        linear = [module for part in parts for module in part.modules() if isinstance(module, nn.Linear)]
        matrices = [weight for module in linear for weight in module.parameters() if weight.ndim == 2]
        return matrices, BASE_DIM / self.model.settings.trunk.dim

    def forward(self, batch: CodeBatch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of one batch."""
        codes = torch.cat((batch.picture, batch.sound), 2)
        settings = self.model.settings
        context = corrupt(codes, settings.context_noise, self._vocabularies()) if self.training else codes
        frames = self.drawn_frames(codes) if self.training else None
        num_own = self._num_own(len(codes))
        if num_own:
            context = self._imagined_context(context, batch.has_sound, frames, num_own)
        states = self.model.states(context, batch.has_sound, self.group)
        frames, share = self._divide(frames, codes)
        known = self._drop_past(states, context, batch.has_sound, frames)
        next_frame = self.next_frame(known, context, codes, batch.has_sound, frames)
        counted = next_frame.counted
        each = next_frame.nats + settings.guess_weight * next_frame.error
        if settings.z_weight > 0:
            each = each + settings.z_weight * next_frame.log_z.square()
        loss = share * (each * counted).sum() / counted.sum()
        metrics = self._describe(next_frame) | {"next/own_context": torch.tensor(num_own / len(codes))}
        for name, result in self.head_results(batch, states, context, num_own=num_own).items():
            loss = loss + getattr(self.weights, name) * result.loss
            metrics[f"{name}/loss"] = result.loss
            metrics[f"{name}/score"] = result.scores.mean()
            metrics[f"{name}/chance"] = torch.tensor(self.heads[name].chance)  # type: ignore[arg-type]
        return loss, metrics

    def next_frame(
        self,
        states: Float[Tensor, "batch frame token dim"],
        context: Int[Tensor, "batch frame code"],
        codes: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        frames: Int[Tensor, " drawn"] | None = None,
    ) -> NextFrame:
        """Predict the frames after `frames` (after each but the last if not given) from the states before them."""
        if frames is None:
            frames = torch.arange(codes.shape[1] - 1, device=codes.device)
        previous, target = context[:, frames].flatten(0, 1), codes[:, frames + 1].flatten(0, 1)
        predictions = self.model.decoder(states[:, frames].flatten(0, 1), previous, target)
        counted = torch.ones_like(codes[:, frames], dtype=torch.bool)
        for part in self.model.decoder.parts[1:]:
            counted[..., part] = has_sound[:, None, None]
        return NextFrame.of(predictions, previous, target, counted)

    def drawn_frames(self, codes: Tensor) -> Tensor | None:
        """A random few frames; the decoder is the larger part of the cost, and the gradient is the same on average."""
        num_steps, count = codes.shape[1] - 1, self.model.settings.decoded_frames
        return torch.randperm(num_steps, device=codes.device)[:count] if 0 < count < num_steps else None

    def _divide(self, frames: Tensor | None, codes: Tensor) -> tuple[Tensor | None, float]:
        """This process's part of the frames to decode, and by how much it counts in the mean over the group.

        They are dealt out, wherever the trunk has had them: the decoder is the larger part of the cost. What follows
        the heads do for all frames on every process: it costs little, and a clip's evidence is one sum.

        Raises:
            ValueError: there are fewer frames than processes.
        """
        if self.group is None:
            return frames, 1.0
        frames = torch.arange(codes.shape[1] - 1, device=codes.device) if frames is None else frames
        if len(frames) < self.group.size:
            raise ValueError(
                f"{len(frames)} frames are decoded, fewer than the {self.group.size} processes of "
                "training.sequence_parallel: raise model.decoded_frames"
            )
        mine = frames[self.group.rank :: self.group.size]
        return mine, self.group.size * len(mine) / len(frames)

    def _num_own(self, size: int) -> int:
        """How many clips, the first, have frames of the model's own: none but in training, late in the run."""
        settings = self.model.settings
        if not self.training or settings.own_context == 0 or self.share_done < settings.own_context_from:
            return 0
        # Drawn up or down, so that the share is right on average; on the CPU, where reading it waits for no GPU.
        return int(torch.rand(()) + settings.own_context * size)

    def _drop_past(self, states: Tensor, context: Tensor, has_sound: Tensor, frames: Tensor | None) -> Tensor:
        """States in which a share of the clips, the last, know of every frame nothing but itself; while training."""
        share = self.model.settings.drop_past
        # Drawn up or down, as in _num_own.
        count = int(torch.rand(()) + share * len(states)) if self.training and share > 0 else 0
        if count == 0:
            return states
        frames = torch.arange(context.shape[1] - 1, device=context.device) if frames is None else frames
        here = context[-count:, frames]
        hears = has_sound[-count:].repeat_interleave(len(frames))
        alone = self.model.states(here.flatten(0, 1)[:, None], hears)[:, 0].unflatten(0, here.shape[:2])
        states = states.clone()
        states[-count:, frames] = alone
        return states

    @torch.no_grad()
    def _imagined_context(
        self, context: Tensor, has_sound: Tensor, frames: Tensor | None, num_own: int
    ) -> Int[Tensor, "batch frame code"]:
        """In the first `num_own` clips, replace the frames to go on from by what a rollout would show there.

        Each is imagined from the true frames before it: one step of its own mistakes is what a rollout feeds back
        (Brandstetter et al. 2022, the pushforward trick). The first frame of a clip has none before it, and stays.
        """
        frames = torch.arange(context.shape[1] - 1, device=context.device) if frames is None else frames
        here, before = context[:num_own], (frames - 1).clamp(min=0)
        states = self.model.states(here, has_sound[:num_own], self.group)[:, before].flatten(0, 1)
        imagined = imagine_frame(self.model.decoder, states, here[:, before].flatten(0, 1), SamplingSettings())
        imagined = imagined.unflatten(0, (num_own, len(frames)))
        context = context.clone()
        context[:num_own, frames] = torch.where(frames[:, None] > 0, imagined, here[:, frames])
        return context

    def head_results(
        self,
        batch: CodeBatch,
        states: Float[Tensor, "batch frame token dim"],
        context: Int[Tensor, "batch frame code"],
        num_views: int | None = None,
        num_own: int = 0,
    ) -> dict[str, HeadResult]:
        """Every head on its views; `states` are those of `context`.

        `num_views` clips are used, and all with others' sound (by default the settings' shares of the batch).

        Views carry no sound, except for correspondence: reversed or hurried sound would give them away at once. Both
        kinds of a comparison are muted alike. The first `num_own` clips, which hold frames of the model's own, tell
        the flow head nothing: it is judged by the true pictures.
        """
        count = num_views or max(1, round(len(batch.picture) * self.weights.view_share))
        results = {}
        if "flow" in self.heads:
            first = num_own if num_own < len(states) else 0
            results["flow"] = self.heads["flow"](states[first:], batch.thumbnails[first:])
        if not self.heads.keys() - {"flow"}:
            return results  # nobody compares views
        heard = batch.has_sound.nonzero()[:, 0]
        # Clips with their own sound are there already: all of them are compared with mismatched copies of some.
        mismatched = len(heard) if num_views else math.ceil(len(heard) * self.weights.mismatched_share)
        chosen, others = heard[:mismatched], heard.roll(1)[:mismatched]
        forwards, backwards, fast, apart = self._view_states(batch, context, count, chosen, others)
        half = batch.fast.shape[1]
        if "arrow_of_time" in self.heads:
            results["arrow_of_time"] = self.heads["arrow_of_time"](forwards, backwards)
        if "speed" in self.heads:
            results["speed"] = self.heads["speed"](forwards[:, :half], fast[:, :half])
        if "correspondence" in self.heads:
            head, measured = self.heads["correspondence"], len(heard) > 1
            # With one clip there is no sound to borrow: no loss, and a score that says "not measured". The head is
            # asked all the same: where another process has gradients of it, this one must have some.
            found = head(states[heard], apart) if measured else head(states[:1], states[:1])
            unknown = HeadResult(0 * found.loss, states.new_full((1,), torch.nan))
            results["correspondence"] = found if measured else unknown
        return results

    def _view_states(
        self, batch: CodeBatch, context: Tensor, count: int, chosen: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States of clips as they are, reversed and fast, all muted, and of clips with others' sound; in one pass.

        The fast clips are half as long; what fills them up comes later, and no state sees what comes later. Both
        kinds of sound are read beside one context: else the head would tell corrupted pictures from clean ones.
        """
        num_frames, num_picture = batch.picture.shape[1:]
        fast = batch.fast[:count, torch.arange(num_frames, device=context.device) % batch.fast.shape[1]]
        muted = torch.cat((batch.picture[:count], batch.reversed[:count], fast))
        silence = torch.zeros_like(batch.sound[:count]).repeat(3, 1, 1)
        apart = torch.cat((context[chosen][..., :num_picture], context[others][..., num_picture:]), 2)
        codes = torch.cat((torch.cat((muted, silence), 2), apart))
        sounding = torch.arange(len(codes), device=codes.device) >= len(muted)
        parts = self.model.states(codes, sounding, self.group).split([count, count, count, len(chosen)])
        return parts[0], parts[1], parts[2], parts[3]

    def _vocabularies(self) -> Tensor:
        sizes = [torch.full((scale.num_codes,), scale.vocabulary) for scale in self.model.decoder.scales]
        return torch.cat(sizes)

    def _describe(self, next_frame: NextFrame) -> dict[str, Tensor]:
        nats, counted, changed = next_frame.nats.detach(), next_frame.counted, next_frame.changed
        mean: Callable[[Tensor, Tensor], Tensor] = lambda values, mask: (values * mask).sum() / mask.sum()  # noqa: E731
        metrics = {
            "next/bits_per_frame": next_frame.bits_per_frame().detach(),
            "next/bits_changed": mean(nats, counted & changed) / math.log(2),
            "next/bits_still": mean(nats, counted & ~changed) / math.log(2),
            "next/right_changed": mean(next_frame.right.float(), counted & changed),
            "next/changed": mean(changed.float(), counted),
            "next/log_z": mean(next_frame.log_z.detach(), counted),
        }
        for level, columns in enumerate(self.model.decoder.slices):
            modality, index = self.model.decoder.levels[level]
            name = ("picture", "sound")[modality]
            metrics[f"next/bits_{name}_{index}"] = mean(nats[..., columns], counted[..., columns]) / math.log(2)
        return metrics


def corrupt(
    codes: Int[Tensor, "batch frame code"], share: float, vocabularies: Int[Tensor, " code"]
) -> Int[Tensor, "batch frame code"]:
    """Replace up to `share` of each frame's codes by random ones, so that the model learns to correct errors.

    After the self-correction of InfinityStar (Liu et al. 2025).
    """
    if share <= 0:
        return codes
    strength = share * torch.rand(codes.shape[:2], device=codes.device)[..., None]
    random = (torch.rand(codes.shape, device=codes.device) * vocabularies.to(codes.device)).long()
    return torch.where(torch.rand(codes.shape, device=codes.device) < strength, random, codes)
