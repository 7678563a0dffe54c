"""A few updates that are not kept, to know how long the whole training will take and what it needs."""

import time
from dataclasses import dataclass

import torch

from worldmodel.training import cluster
from worldmodel.training.engine import Engine
from worldmodel.training.loop import Batches
from worldmodel.training.memory import Activations, peak_bytes

NUM_STEPS = 3


@dataclass(frozen=True)
class Rehearsal:
    """What some updates took; of several processes the most.

    Attributes:
        seconds: of every update, its data included.
        activation_bytes: what the forward pass of one micro-batch keeps for its backward pass.
        peak_bytes: the most memory that a process has had.
    """

    seconds: list[float]
    activation_bytes: int
    peak_bytes: int

    @property
    def step_seconds(self) -> float:
        """Mean of an update."""
        return sum(self.seconds) / len(self.seconds)


def rehearse(engine: Engine, loader: Batches, num_steps: int = NUM_STEPS) -> Rehearsal:
    """Makes one update to warm up, which is counted for memory, and then some that are measured.

    All processes call it together.
    """
    activations, seconds = Activations(), list[float]()
    for step in range(1 + num_steps):
        started = time.perf_counter()
        for micro in range(engine.num_micro):
            batch = next(loader).to(engine.device)
            if step == micro == 0:
                with activations.counted():
                    loss, _ = engine.forward(batch)
            else:
                loss, _ = engine.forward(batch)
            engine.backward(loss)
        # Waits for the device too: the norm of the gradient is read.
        engine.update(engine.learning_rate)
        seconds.append(time.perf_counter() - started)
    mine = torch.tensor([*seconds[1:], activations.num_bytes, peak_bytes(engine.device)], dtype=torch.float64)
    *slowest, kept, peak = cluster.largest_(mine.to(engine.device)).tolist()
    return Rehearsal(slowest, int(kept), int(peak))
