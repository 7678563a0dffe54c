"""`export`: a cache as a folder of videos, or of tar files in the manner of webdataset."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from worldmodel.cache.latents import LatentCache

DESCRIPTION = """Writes a folder that needs nothing of this project to be read: videos, decoded from the codes, or tar
files that webdataset reads, with the codes of every clip as .npy and what is known of it as .json. The folder has the
attributes of the cache beside, in cache.json; it is there whole or not at all."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("cache", type=str, help="a cache, or the address of one")
    parser.add_argument("folder", type=str, help="the folder to write; must not be there yet")
    parser.add_argument("--format", choices=["videos", "tar"], default="videos", help="what to write")
    parser.add_argument("--split", choices=["all", "train", "heldout"], default="all", help="which clips")
    parser.add_argument("--num_clips", type=int, default=0, help="most clips, the first ones; 0 for all")
    parser.add_argument("--shard_clips", type=int, default=1000, help="clips of one tar file")
    parser.add_argument(
        "--codec", type=str, nargs="*", default=[], help="runs that made it; those that the cache names if left out"
    )
    return parser


def run(arguments: Namespace) -> None:
    """Writes the folder and says what is in it."""
    from worldmodel.cache.latents import LatentCache
    from worldmodel.cache.writer import write_errors
    from worldmodel.errors import CacheError, SettingsError

    folder, cache = Path(arguments.folder), LatentCache(arguments.cache)
    if folder.exists():
        raise CacheError(f"{folder} exists already: give another name")
    if arguments.num_clips < 0 or arguments.shard_clips < 1:
        raise SettingsError(
            f"--num_clips {arguments.num_clips} --shard_clips {arguments.shard_clips}: give 0 and 1 at least"
        )
    chosen = cache.clips_of(arguments.split).tolist()
    chosen = chosen[: arguments.num_clips or None]
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    with write_errors(partial):
        partial.mkdir(parents=True)
        (partial / "cache.json").write_text(json.dumps(cache.attributes, indent=1), encoding="utf-8")
        if arguments.format == "tar":
            write_tars(cache, chosen, partial, arguments.shard_clips)
        else:
            write_videos(cache, chosen, partial, arguments.codec)
        partial.replace(folder)
    print(f"{folder}: {len(chosen)} clips as {arguments.format}")


def write_videos(cache: "LatentCache", chosen: list[int], folder: Path, given: list[str]) -> None:
    """One mp4 for every clip, by its number in the cache, and clips.json about them."""
    from tqdm import tqdm

    from streams.pyav.writer import write_video
    from tools.latents.codecs import decode_clip, find_codecs
    from worldmodel.evaluation.films import joined_sound

    codecs = find_codecs(cache, given)
    settings = codecs[0].clips
    for position in tqdm(chosen, unit="clip", disable=None):
        clip = decode_clip(cache, codecs, position)
        sound = joined_sound(clip, settings)
        write_video(folder / f"{position:08d}.mp4", clip.frames, settings.frames_per_second, sound, settings.sample_hz)
    about = {f"{position:08d}.mp4": about_clip(cache, position) for position in chosen}
    (folder / "clips.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def write_tars(cache: "LatentCache", chosen: list[int], folder: Path, shard_clips: int) -> None:
    """Tar files of so many clips, the same bytes whenever they are written; a clip's files share its number."""
    from tqdm import tqdm

    starts = range(0, len(chosen), shard_clips)
    with tqdm(total=len(chosen), unit="clip", disable=None) as bar:
        for number, start in enumerate(starts):
            with tarfile.open(folder / f"clips-{number:06d}.tar", "w") as shard:
                for position in chosen[start : start + shard_clips]:
                    for name, content in members_of(cache, position):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
                    bar.update()


def members_of(cache: "LatentCache", position: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of a clip's files."""
    import numpy as np

    for name, rows in cache.rows.items():
        if name not in {"video", "heldout", "has_sound"}:
            packed = io.BytesIO()
            np.save(packed, np.ascontiguousarray(rows[position]))
            yield f"{position:08d}.{name}.npy", packed.getvalue()
    yield f"{position:08d}.json", json.dumps(about_clip(cache, position)).encode()


def about_clip(cache: "LatentCache", position: int) -> dict[str, Any]:
    """From where a clip is."""
    rows = cache.rows
    name, digest = cache.info.videos[int(rows["video"][position])]
    return {
        "video": name,
        "sha256": digest,
        "start_seconds": float(rows["seconds"][position][0]),
        "has_sound": bool(rows["has_sound"][position]),
        "heldout": bool(rows["heldout"][position]),
    }
