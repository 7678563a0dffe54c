"""`worldmodel train`, unchanged, in a process that notes what it reads, computes and saves.

A note is one line, written by one call, so that a kill never leaves half of it.
"""

import json
import os
import time
import zlib
from typing import Any

NOTES, START = "KILL_STORM_NOTES", "KILL_STORM_START"  # variables: the file, and which start of the job this is


def note(what: str, **values: Any) -> None:
    """Appends a line to the file of notes."""
    about = {"what": what, "start": int(os.environ[START]), "rank": int(os.environ["RANK"]), "at": time.time()}
    descriptor = os.open(os.environ[NOTES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(about | values) + "\n").encode())
    finally:
        os.close(descriptor)


def tap() -> None:
    """Lets the loader, the loop, the checkpoints and the engine tell what they do."""
    from streams.loader import Loader
    from worldmodel.training import checkpoint
    from worldmodel.training.engine import Engine
    from worldmodel.training.loop import Loop

    read, micro_batch, save, close = Loader.__next__, Loop.micro_batch, checkpoint.save, Engine.close
    crc = [0]

    def noted_read(self: Loader) -> Any:
        batch = read(self)
        crc[0] = zlib.crc32(batch.picture.numpy().tobytes())
        return batch

    def noted_micro_batch(self: Loop, step: int) -> float:
        loss = micro_batch(self, step)
        seen = self.seen[-1]
        own = float(seen.loss).hex()
        note("batch", step=step, first=seen.start, stop=seen.stop, crc=crc[0], own=own, loss=loss.hex())
        return loss

    def noted_save(*arguments: Any) -> Any:
        note("saving", step=arguments[2].step)
        folder = save(*arguments)
        note("saved", step=arguments[2].step)
        return folder

    def noted_close(self: Engine) -> None:
        note("end")
        close(self)

    Loader.__next__, Loop.micro_batch = noted_read, noted_micro_batch  # type: ignore[method-assign]
    checkpoint.save, Engine.close = noted_save, noted_close  # type: ignore[method-assign]


def main() -> None:
    """The command; it is tapped once its handlers of signals stand, which is before anything heavy is imported."""
    from worldmodel.cli import run
    from worldmodel.training import signals

    install = signals.install

    def install_and_tap() -> signals.StopRequest:
        stop = install()
        tap()
        return stop

    signals.install = install_and_tap  # type: ignore[assignment]
    run()


if __name__ == "__main__":
    main()
