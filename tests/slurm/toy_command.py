"""Stands for `worldmodel train --config FILE --run RUN` and `worldmodel train --resume RUN`, with the toy objective.

At its first start it waits in the steps of WAIT_AT for a signal, or for the file `go` with the step's number in the
run's folder, so that a test need not hit a moment; later starts say when they made their first step. Checkpoints are
made every CHECKPOINT_EVERY steps (0: at the end alone), and a step may take HANG_SECONDS, the waiting not counted.
"""

import os
import sys
import time
from pathlib import Path

from worldmodel.training import signals

STEPS = 12


def main() -> int:
    stop = signals.install()
    import torch

    from tests.worldmodel.training.toy import Toy, train_toy
    from worldmodel.training import cluster, hanging
    from worldmodel.training.owner import owned

    torch.set_num_threads(1)
    resume = sys.argv[2] == "--resume"
    run = Path(sys.argv[-1])
    rank = cluster.find_ranks().rank
    toy = Toy()
    options = {name.lower(): int(os.environ.get(name, "0")) for name in ("CHECKPOINT_EVERY", "HANG_SECONDS")}
    waits = [int(number) for number in os.environ.get("WAIT_AT", "5").split()]

    def at_step(number: int) -> None:
        if resume and number == 1:
            (run / f"resumed{rank}").touch()
        if not resume and number in waits:
            hanging.rest()
            (run / f"waiting{rank}-{number}").touch()
            while not (stop.requested or (run / f"go{number}").exists()):
                time.sleep(0.05)
            hanging.alive(options["hang_seconds"], f"step {number}")

    toy.at_call = at_step
    cluster.start()
    with owned(run):
        _, result = train_toy(run, toy, steps=STEPS, stop=stop, resume=resume, **options)
    with (run / f"losses{rank}").open("a") as file:
        file.writelines(f"{loss!r}\n" for loss in toy.losses)
    return signals.EXIT_INTERRUPTED if result.interrupted else 0


def run() -> int:
    from worldmodel.errors import LostProcessError

    try:
        return main()
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from worldmodel.training import cluster

    cluster.leave(run())
