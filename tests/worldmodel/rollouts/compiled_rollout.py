"""Compares a compiled rollout to one that is not; prints what was found as JSON."""

import json
from dataclasses import replace
from itertools import islice

import torch

from tests.worldmodel.tiny import MODEL, TRUNK, random_codes, tiny_model
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import SamplingSettings

HEARD = torch.tensor([True, False])
HORIZON = 16


def main() -> None:
    """Draw some scales and move the others, of clips with and without sound."""
    torch.set_num_threads(1)
    shallow = replace(TRUNK, depth=1)
    model, found = tiny_model(replace(MODEL, trunk=shallow, decoder=shallow)), []
    prompt = random_codes(2, 4, model.num_codes)
    for how in (None, Repeat(compiled=True)):
        generator = torch.Generator().manual_seed(5)
        frames = roll_out(model, prompt, HEARD, SamplingSettings(moved_scales=0, preview_scales=1), generator, 1, how)
        with torch.inference_mode():
            found.append(torch.stack(list(islice(frames, HORIZON)), 1))
    one, other = found
    alive = (one[:, 1:] != one[:, :-1]).any(-1).float().mean() > 0.5
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps({"equal": torch.equal(one, other), "alive": bool(alive), "graphs": graphs}))


if __name__ == "__main__":
    main()
