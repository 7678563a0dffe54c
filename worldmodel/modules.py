"""A list of modules that knows what they are."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Modules(nn.ModuleList, Generic[ModuleT]):
    """`nn.ModuleList`, with the type of its members for readers and type checkers: Modules[Block](...)."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[ModuleT]:
            """Members in order."""
            ...

        def __getitem__(self, index: int) -> ModuleT:  # pyright: ignore[reportIncompatibleMethodOverride]
            """One member."""
            ...
