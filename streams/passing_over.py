"""Going on where an item cannot be read."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from streams.errors import MediaError
from streams.journal import Journal
from streams.source import Source

# Items tried before it is said that none can be read.
MAX_TRIES = 100


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose items come from files."""

    @property
    def journal(self) -> Journal:
        """What it counts and times; a mixture gives it another."""
        ...

    def path_of(self, index: int) -> str:
        """The file of an item."""
        ...


class PassingOver:
    """A source that reads another item, drawn at random, where one cannot be read, and notes it in the journal.

    For training on files whose damage only shows in the middle. What is read stays a pure function of the position.
    It is not the next item that takes the place, which in a long file that is gone would fail too, and the next.
    """

    def __init__(self, source: FileSource) -> None:
        """Wraps a source."""
        self.source = source

    @property
    def journal(self) -> Journal:
        """That of the wrapped source."""
        return self.source.journal

    @journal.setter
    def journal(self, journal: Journal) -> None:
        self.source.journal = journal  # type: ignore[misc]

    @property
    def blocks(self) -> Sequence[int] | np.ndarray | None:
        """Those of the wrapped source."""
        return getattr(self.source, "blocks", None)

    def __len__(self) -> int:
        """Items of the wrapped source, damaged ones included."""
        return len(self.source)

    def read(self, index: int, generator: np.random.Generator) -> Any:
        """Reads an item, or the first that can be read of those drawn in its place.

        Raises:
            MediaError: none of them can be read.
        """
        reason = ""
        for _ in range(MAX_TRIES):
            state = generator.bit_generator.state
            try:
                return self.source.read(index, generator)
            except MediaError as error:
                path = self.source.path_of(index)
                reason = str(error)
                self.journal.fail(path, reason.removeprefix(f"{path}: "))
            # How much was drawn before the failure must not matter: it may come earlier where items are read together.
            generator.bit_generator.state = state
            index = int(generator.integers(len(self)))
        raise MediaError(
            f"none of {MAX_TRIES} clips drawn at random can be read: repair the files or leave them out; "
            f"the last one: {reason}"
        )

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[Any]:
        """Reads items of one block, each as `read` does."""
        states = [generator.bit_generator.state for generator in generators]
        try:
            return self.source.read_together(indices, generators)  # type: ignore[attr-defined] (where it has blocks)
        except MediaError:
            for generator, state in zip(generators, states, strict=True):
                generator.bit_generator.state = state
        return [self.read(index, generator) for index, generator in zip(indices, generators, strict=True)]

    def collate(self, items: list[Any]) -> Any:
        """Stacks items."""
        return self.source.collate(items)
