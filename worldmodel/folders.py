"""One folder of videos, or several that are mixed by weight."""

from collections.abc import Sequence
from pathlib import Path

from streams.addresses import Address, address_of, find_known, text_of
from streams.manifest import Entry
from streams.videos import VideoSource
from worldmodel.errors import MediaError

# A folder, or anything else that `streams.addresses.find_known` takes; or several with their weights.
Folders = str | dict[str, float]


def weights_of(folders: Folders | None) -> list[float]:
    """The weight of every folder."""
    return list(folders.values()) if isinstance(folders, dict) else [1.0]


def find_all(folders: Folders) -> dict[str, tuple[Address | Entry, str]]:
    """All videos by name, folder by folder, each with the folder in which it is found first.

    Raises:
        MediaError: a folder cannot be read, or has no videos.
    """
    found: dict[str, tuple[Address | Entry, str]] = {}
    for folder in folders if isinstance(folders, dict) else [folders]:
        for each in find_known(folder):
            found.setdefault(name_of(address_of(each.path) if isinstance(each, Entry) else each), (each, folder))
    return found


def name_of(address: Address) -> str:
    """The same for the same file, however it was given."""
    return text_of(address.absolute() if isinstance(address, Path) else address)


def parts_of(
    videos: VideoSource, folders: Folders | None, positions: Sequence[int], what: str = "usable"
) -> list[Sequence[int]]:
    """Which of these clips are of which folder.

    Args:
        videos: made of `find_all`'s.
        folders: as given by the user.
        positions: of clips.
        what: what these clips are, for the error.

    Raises:
        MediaError: a folder of several has none.
    """
    if not isinstance(folders, dict):
        return [positions]
    found = find_all(folders)
    origins = [found[name_of(video.path)][1] for video in videos.videos]
    parts: dict[str, list[int]] = {folder: [] for folder in folders}
    for position in positions:
        parts[origins[videos.video_of[position]]].append(position)
    for folder, part in parts.items():
        if not part:
            raise MediaError(
                f"{folder}: no video of it is {what}, so that its weight {folders[folder]:g} cannot be kept: leave it "
                "out, give it more videos, or name it before a folder that holds it"
            )
    return list(parts.values())
