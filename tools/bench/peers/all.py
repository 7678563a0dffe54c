"""The contenders that are installed, ours first."""

from importlib import import_module

from tools.bench.peers.contender import Contender

NAMES = ("ours", "torchcodec", "decord", "pyav")


def contenders(*names: str) -> list[Contender]:
    """Contenders by name (all if none is named); one whose library is not installed is left out."""
    found = []
    for name in names or NAMES:
        try:
            found.append(import_module(f"tools.bench.peers.{name}").CONTENDER)
        except ImportError:
            continue
    return found
