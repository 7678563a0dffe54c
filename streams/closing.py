"""Things that hold a decoder or a file, and must be closed."""

from typing import TypeVar

Held = TypeVar("Held", bound="Closing")


class Closing:
    """Has a `close`, which a `with` calls at its end."""

    def close(self) -> None:
        """Frees what is held."""
        raise NotImplementedError

    def __enter__(self: Held) -> Held:
        """Closes at the end of the `with`."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes."""
        self.close()
