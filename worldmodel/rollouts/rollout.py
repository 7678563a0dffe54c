"""Rollouts: frames imagined one after another, in codes, never through pixels."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from worldmodel.rollouts.moment import FrameModel, Moment
from worldmodel.rollouts.next_frame import draw_numbers, imagine_frame
from worldmodel.rollouts.repeated import Repeat, Repeated
from worldmodel.settings import SamplingSettings


@torch.no_grad()
def roll_out(
    model: FrameModel,
    prompt: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
    num_rollouts: int = 1,
    how: Repeat | None = None,
) -> Iterator[Int[Tensor, "rollout code"]]:
    """Endless frames after the prompt, at constant cost per frame; stop asking when there are enough.

    Of every prompt there are `num_rollouts`, next to each other, and the prompt is read once for all of them.
    `how` frames are repeated once the window is full; without it each is computed operation by operation. What is
    begun in inference mode goes on in inference mode alone.
    """
    moment = Moment.after(model, prompt, has_sound, num_rollouts)
    while how is None or not moment.settled:
        codes, decoded = moment.imagine(model, sampling, draw_numbers(moment.codes, generator))
        yield codes
        moment.move_on(model, codes, decoded)
    repeated = Repeated(model, moment, sampling, how)
    while True:
        yield repeated(draw_numbers(moment.codes, generator))


@torch.no_grad()
def roll_out_anew(
    model: FrameModel,
    prompt: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, "batch code"]]:
    """The same frames, for each of which all earlier ones are read again: a reference for tests and benchmarks."""
    while True:
        state, last = model.states(prompt, has_sound)[:, -1], prompt[:, -1]
        numbers = draw_numbers(last, generator)
        alone = None if sampling.guidance == 1 else model.states(last[:, None], has_sound)[:, 0]
        codes = imagine_frame(model.decoder, state, last, sampling, numbers, alone)
        yield codes
        prompt = torch.cat((prompt, codes[:, None]), 1)
