"""Where a rollout is: what its next frame follows from."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoder import DecoderCache
from worldmodel.model import ModelCache
from worldmodel.rollouts.next_frame import ScaleDecoder, imagine_frame
from worldmodel.settings import SamplingSettings


@runtime_checkable
class FrameModel(Protocol):
    """What a rollout asks of a world model."""

    @property
    def decoder(self) -> ScaleDecoder:
        """The frame decoder."""
        ...

    def states(self, codes: Tensor, has_sound: Tensor) -> Tensor:
        """States of all frames, (batch, frame, token, dim)."""
        ...

    def start(self) -> ModelCache:
        """Begin a rollout."""
        ...

    def step(self, codes: Tensor, has_sound: Tensor, cache: ModelCache, decoded: DecoderCache | None = None) -> Tensor:
        """State after one more frame; `decoded` is what its decoder kept, if it was imagined."""
        ...

    def read(self, codes: Tensor, has_sound: Tensor, cache: ModelCache) -> Tensor:
        """State after several more frames, (batch, frame, code)."""
        ...


@dataclass
class Moment:
    """The last frame, and what is known after it.

    Attributes:
        codes: of the last frame.
        has_sound: whether the prompt had sound.
        state: the trunk's, after that frame.
        cache: what is kept of the frames before.
        settled: whether the window was full before the last frame too: then all that follow have the same shapes. At
            least one frame has been imagined by then, so that what is made once, such as masks, is there.
    """

    codes: Int[Tensor, "rollout code"]
    has_sound: Bool[Tensor, " rollout"]
    state: Float[Tensor, "rollout token dim"]
    cache: ModelCache
    settled: bool = False

    @classmethod
    def after(
        cls,
        model: FrameModel,
        prompt: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        num_rollouts: int = 1,
    ) -> "Moment":
        """The end of a prompt, read once for `num_rollouts` of every clip, which are next to each other."""
        cache = model.start()
        state = model.read(prompt, has_sound, cache)
        cache.branch(num_rollouts)
        codes, has_sound, state = (x.repeat_interleave(num_rollouts, 0) for x in (prompt[:, -1], has_sound, state))
        return cls(codes, has_sound, state, cache)

    def imagine(
        self, model: FrameModel, sampling: SamplingSettings, numbers: Float[Tensor, "rollout number"]
    ) -> tuple[Int[Tensor, "rollout code"], DecoderCache]:
        """The next frame, and what its decoder kept; see `imagine_frame`."""
        alone = None if sampling.guidance == 1 else model.states(self.codes[:, None], self.has_sound)[:, 0]
        decoded = model.decoder.start(self.state, self.cache.latents)
        return imagine_frame(model.decoder, self.state, self.codes, sampling, numbers, alone, decoded), decoded

    def move_on(self, model: FrameModel, codes: Int[Tensor, "rollout code"], decoded: DecoderCache) -> None:
        """Go on to the frame that was imagined."""
        num_kept = self.cache.trunk.num_kept
        self.codes, self.state = codes, model.step(codes, self.has_sound, self.cache, decoded)
        self.settled = self.cache.trunk.num_kept == num_kept
