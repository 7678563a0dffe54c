"""Compares a compiled rollout to one that is not; prints what was found as JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from tests.worldmodel.tiny import MODEL, TRUNK, random_codes, tiny_model
from worldmodel.model import WorldModel
from worldmodel.rollouts import repeated
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import SamplingSettings

HEARD = torch.tensor([True, False])
WAYS = (None, Repeat(compiled=True))
HORIZON = 16
NUM_FORMS = 10  # more than torch compiles of one function by itself


def main() -> None:
    """One scale, as all of them would take minutes; then models and ways to draw that must not be taken for another."""
    torch.set_num_threads(1)
    shallow = replace(TRUNK, depth=1)
    model = tiny_model(replace(MODEL, trunk=shallow, decoder=shallow))
    plain, compiled = (frames_of(model, SamplingSettings(moved_scales=0, preview_scales=1), how) for how in WAYS)
    alive = (plain[:, 1:] != plain[:, :-1]).any(-1).float().mean() > 0.5
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    repeated.compiled_advance = lru_cache(traced)
    forms = sum(is_the_same(number) for number in range(NUM_FORMS))
    found = {"equal": torch.equal(plain, compiled), "alive": bool(alive), "graphs": graphs, "forms": forms}
    print(json.dumps(found))


def traced(on_cpu: bool) -> Callable[..., None]:
    """As `compiled_advance`, but what is traced is not made into code."""
    return torch.compile(repeated.advance, fullgraph=True, dynamic=False, backend="eager")


def is_the_same(number: int) -> bool:
    """Whether one more model, drawn in another way, imagines the same compiled."""
    model, sampling = tiny_model(seed=number), SamplingSettings([1 + number / 10], moved_scales=number % 2)
    plain, compiled = (frames_of(model, sampling, how) for how in WAYS)
    return torch.equal(plain, compiled)


def frames_of(model: WorldModel, sampling: SamplingSettings, how: Repeat | None) -> Tensor:
    """Frames of two clips, one of them without sound."""
    prompt, generator = random_codes(2, 4, model.num_codes), torch.Generator().manual_seed(5)
    with torch.inference_mode():
        frames = roll_out(model, prompt, HEARD, sampling, generator, 1, how)
        return torch.stack(list(islice(frames, HORIZON)), 1)


if __name__ == "__main__":
    main()
