"""Stands for `worldmodel train --config FILE --run RUN` and `worldmodel train --resume RUN`, with the toy objective.

At its first start it waits at the fifth step for the signal, so that a test need not hit a moment.
"""

import sys
import time
from pathlib import Path

from worldmodel.training import signals

STEPS, WAIT_AT = 12, 5


def main() -> int:
    stop = signals.install()
    import torch

    from tests.worldmodel.training.toy import Toy, train_toy
    from worldmodel.training import cluster

    torch.set_num_threads(1)
    resume = sys.argv[2] == "--resume"
    run = Path(sys.argv[-1])
    rank = cluster.find_ranks().rank
    toy = Toy()

    def wait_for_signal(number: int) -> None:
        if number == WAIT_AT and not resume:
            (run / f"waiting{rank}").touch()
            while not stop.requested:
                time.sleep(0.05)

    toy.at_call = wait_for_signal
    run.mkdir(parents=True, exist_ok=True)
    _, result = train_toy(run, toy, steps=STEPS, stop=stop, resume=resume)
    with (run / f"losses{rank}").open("a") as file:
        file.writelines(f"{loss!r}\n" for loss in toy.losses)
    return signals.EXIT_INTERRUPTED if result.interrupted else 0


if __name__ == "__main__":
    from worldmodel.training import cluster

    cluster.leave(main())
