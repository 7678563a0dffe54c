"""One job at a time works on a run's folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from worldmodel.cache.locks import locked
from worldmodel.errors import CacheError, CheckpointError
from worldmodel.training import cluster

LOCK = ".lock"


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Holds a run's folder, which is made where it is missing; process 0 holds it, and all processes enter together.

    The lock is the kernel's (flock): it ends with its holder, however that ends. A folder that is still empty goes.

    Raises:
        CheckpointError: another job holds it, or the folder cannot be written.
    """
    with ExitStack() as stack:
        failure = ""
        if cluster.is_main():
            try:
                stack.enter_context(locked(run / LOCK, f"the run {run}"))
                stack.callback(remove_if_empty, run)
            except CacheError as error:
                failure = str(error)
            except OSError as error:
                failure = f"{run} cannot be written ({error.strerror}): give the folder of a run that can"
        if failure := cluster.texts(failure)[0]:
            raise CheckpointError(failure)
        yield


def remove_if_empty(run: Path) -> None:
    """Leaves nothing behind of a run that was refused."""
    if [path.name for path in run.iterdir()] == [LOCK]:
        (run / LOCK).unlink()
        run.rmdir()
