"""How a tool ends: what a user can mend is one line on stderr, and no traceback."""

import sys
from collections.abc import Callable

from streams.errors import UserError


def exit_status(run: Callable[[], object], when_stopped: str = "stopped") -> int:
    """Runs a program to its end.

    Args:
        run: the program.
        when_stopped: what to say after Ctrl-C.

    Returns:
        0; 1 after a user's error; 130 after Ctrl-C.
    """
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(when_stopped, file=sys.stderr)
        return 130
    return 0
