"""A whole frame as one call: compiled, or recorded as a CUDA graph, and repeated from where the last one stopped."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from worldmodel.compiler import quietly, reason_of
from worldmodel.model import ModelCache
from worldmodel.rollouts.moment import FrameModel, Moment
from worldmodel.settings import SamplingSettings
from worldmodel.trunk import TrunkCache

# Models, numbers of clips and ways to draw that one process may compile frames for; torch's 8 are soon reached.
MOST_FORMS = 64


@dataclass(frozen=True)
class Repeat:
    """How frames are repeated.

    Attributes:
        compiled: by code that torch.compile makes of a frame when the first is asked for.
        recorded: as a CUDA graph, which records the second.
    """

    compiled: bool = False
    recorded: bool = False


class Repeated:
    """Frames after a moment that is settled.

    All memory is fixed: numbers are copied in, a frame is written over the one before it, and its codes are copied out.
    """

    def __init__(self, model: FrameModel, moment: Moment, sampling: SamplingSettings, how: Repeat) -> None:
        """Takes over the slots of the moment's cache; nothing is computed yet."""
        self.model, self.sampling, self.how = model, sampling, how
        self.moment = fixed(moment)
        self.numbers = torch.zeros(len(moment.codes), 1 + moment.codes.shape[1], device=moment.codes.device)
        self.by = compiled_advance(moment.codes.device.type == "cpu") if how.compiled else advance
        self.graph: torch.cuda.CUDAGraph | None = None
        self.num_frames = 0

    def __call__(self, numbers: Float[Tensor, "rollout number"]) -> Int[Tensor, "rollout code"]:
        """The next frame, as `Moment.imagine` would have it from these numbers."""
        self.numbers.copy_(numbers)
        if self.how.recorded and self.num_frames == 1:
            self.graph = recorded(self._advance)
        self.num_frames += 1
        if self.graph is not None:
            self.graph.replay()
        elif self.how.compiled and self.num_frames == 1:
            self._compile()
        else:
            self._advance()
        return self.moment.codes.clone()

    def _compile(self) -> None:
        """The first frame of its kind; where no code can be made of it, it goes on without, and that is told."""
        tqdm.write("making code of a whole frame: one to three minutes, or seconds if it was made before", sys.stderr)
        try:
            with quietly(), torch._dynamo.config.patch(recompile_limit=MOST_FORMS):
                self._advance()
        except RuntimeError as error:  # what every error of torch's compilers is
            tqdm.write(f"frames are not compiled: {reason_of(error)}", sys.stderr)
            self.by = advance
            self._advance()

    def _advance(self) -> None:
        self.by(self.model, self.moment, self.sampling, self.numbers)


def advance(model: FrameModel, moment: Moment, sampling: SamplingSettings, numbers: Tensor) -> None:
    """Writes the next moment over this one."""
    now = branch_of(moment)
    now.move_on(model, *now.imagine(model, sampling, numbers))
    for old, new in zip(changing(moment), changing(now), strict=True):
        old.copy_(new)


@lru_cache(maxsize=2)
def compiled_advance(on_cpu: bool) -> Callable[[FrameModel, Moment, SamplingSettings, Tensor], None]:
    """`advance` as code that is made once for all rollouts of a model, of so many clips and drawn in one way."""
    # Python would start the kernels of a small model more slowly than a processor runs them.
    return torch.compile(advance, fullgraph=True, dynamic=False, options={"cpp_wrapper": on_cpu})


def recorded(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """What it would do, and has not done yet; other threads may go on, one of which decodes what was imagined."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph


def fixed(moment: Moment) -> Moment:
    """The same in memory of its own, but for the slots; the number of frames is a tensor."""
    trunk, own = moment.cache.trunk, lambda x: x.clone(memory_format=torch.contiguous_format)
    num_frames = torch.as_tensor(trunk.num_frames, device=moment.codes.device).clone()
    latents = [own(latent) for latent in moment.cache.latents or []]
    cache = ModelCache(TrunkCache(trunk.layers, num_frames, trunk.num_kept), latents)
    return Moment(own(moment.codes), own(moment.has_sound), own(moment.state), cache)


def branch_of(moment: Moment) -> Moment:
    """One that can move on by itself, but for the slots."""
    trunk = moment.cache.trunk
    cache = ModelCache(TrunkCache(trunk.layers, trunk.num_frames, trunk.num_kept), moment.cache.latents)
    return Moment(moment.codes, moment.has_sound, moment.state, cache)


def changing(moment: Moment) -> Iterator[Tensor]:
    """What is new in every moment, but for the slots."""
    assert isinstance(moment.cache.trunk.num_frames, Tensor), "a number would be recorded as it is"
    yield from (moment.codes, moment.state, moment.cache.trunk.num_frames, *(moment.cache.latents or []))
