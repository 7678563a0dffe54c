"""Errors a user can cause in settings, caches and checkpoints (media errors are in `streams.errors`)."""

from streams.errors import MediaError, UserError

__all__ = ["CacheError", "CheckpointError", "LostProcessError", "MediaError", "SettingsError", "UserError"]


class SettingsError(UserError):
    """A setting that is unknown, of a wrong type, or that contradicts another one."""


class CacheError(UserError):
    """A latent cache that is missing, incomplete, damaged, or made with another codec."""


class CheckpointError(UserError):
    """A run or checkpoint that is missing, incomplete, damaged, or of another model."""


class LostProcessError(UserError):
    """Another process of the run has ended, or cannot be reached; started again, the run may go on."""
