"""Errors a user can cause; commands print their message as one line and exit with a non-zero status."""


class UserError(Exception):
    """A wrong input. The message names the value, what was expected and what to do."""


class MediaError(UserError):
    """A media file that cannot be used, or a folder in which there is none."""


class DamageError(MediaError):
    """A media file that cannot be read or is damaged; no other library may be tried on it."""
