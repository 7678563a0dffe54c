"""The random states of a process, as tensors."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def seed(seed: int, rank: int = 0, step: int = 0) -> None:
    """Seeds Python, numpy and torch; processes of one run draw differently, and after another step too.

    Seed with rank 0 everywhere before a model is built, so that all processes build the same one.
    """
    words = np.random.SeedSequence([seed, rank, step] if step else [seed, rank]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))  # noqa: NPY002 (libraries draw from the old global state)
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def states() -> dict[str, Tensor]:
    """The random states of this process; `restore` takes them back."""
    _, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, python_words, next_gauss = random.getstate()
    found = {
        "torch": torch.get_rng_state(),
        "numpy_words": torch.from_numpy(np.asarray(words, dtype=np.int64)),
        "numpy_position": torch.tensor([position, has_gauss]),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
        "python_words": torch.tensor([version, *python_words]),
        # An empty tensor stands for no number kept back.
        "python_gauss": torch.tensor([] if next_gauss is None else [next_gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore(states: dict[str, Tensor]) -> None:
    """Sets the random states of this process; one saved without a GPU leaves the GPU's as it is."""
    torch.set_rng_state(states["torch"])
    position, has_gauss = states["numpy_position"].tolist()
    words = states["numpy_words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, states["numpy_gauss"].item()))  # noqa: NPY002
    version, *python_words = states["python_words"].tolist()
    gauss = states["python_gauss"].tolist()
    random.setstate((version, tuple(python_words), gauss[0] if gauss else None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def kept() -> Iterator[None]:
    """Whatever is drawn inside, the random states are afterwards what they were."""
    before = states()
    try:
        yield
    finally:
        restore(before)
