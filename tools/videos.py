"""Videos: `python -m tools.videos physics FOLDER` writes clips of the physics world, `scan VIDEOS` lists clips."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from streams.errors import UserError
from streams.settings import ClipSettings, PhysicsSettings


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.videos", description=__doc__)
    commands = parser.add_subcommands(required=True)
    physics = ArgumentParser(description="Writes clips of the physics world, one per seed, with their truth.")
    physics.add_argument("folder", type=str, help="folder to write to")
    physics.add_argument("--num-videos", type=int, default=600, help="clips to write")
    physics.add_argument("--seed", type=int, default=0, help="seed of the first clip; the next has the next number")
    physics.add_argument("--workers", type=int, default=0, help="processes; 0 takes one per processor")
    physics.add_class_arguments(PhysicsSettings, "world")
    commands.add_subcommand("physics", physics)
    scan = ArgumentParser(description="Lists clips per video, and the files that are left out with the reason.")
    scan.add_argument("videos", type=str, help="folder of videos, one video, or a glob")
    scan.add_class_arguments(ClipSettings, "clips")
    commands.add_subcommand("scan", scan)
    return parser


def run_physics(arguments: Namespace, settings: PhysicsSettings) -> None:
    """Writes the clips of consecutive seeds; complete clips of the same settings are kept."""
    from tqdm import tqdm

    from streams.physics.world import write_clip

    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.seed, arguments.seed + arguments.num_videos)
    num_workers = min(arguments.workers or os.cpu_count() or 1, len(seeds))
    written = run_over(partial(write_clip, folder, settings), seeds, num_workers)
    num_written = sum(tqdm(written, total=len(seeds), unit="clip", desc="physics"))
    print(f"{folder}: wrote {num_written} clips, kept {len(seeds) - num_written}")


def run_over(write: "partial[bool]", seeds: range, num_workers: int) -> Iterator[bool]:
    """Applies `write` to all seeds, in this process if one worker is enough."""
    if num_workers <= 1:
        yield from map(write, seeds)
        return
    # Spawned, since a media library that was loaded before a fork can hang in the child.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=limit_threads) as pool:
        yield from pool.map(write, seeds, chunksize=4)


def limit_threads() -> None:
    """One thread per worker: the processes are the parallelism."""
    import torch

    torch.set_num_threads(1)


def run_scan(arguments: Namespace, settings: ClipSettings) -> None:
    """Prints the number of clips of every video and the reason for each file that is left out."""
    from collections import Counter

    from streams.videos import VideoSource, find_videos

    source = VideoSource(find_videos(arguments.videos), settings)
    for path, num_clips in sorted(Counter(clip.path for clip in source.clips).items()):
        print(f"{num_clips:6d} clips  {path}")
    for path, reason in source.skipped:
        print(f"   skipped  {path}: {reason}")
    print(f"{len(source.clips)} clips; {len(source.skipped)} files skipped")


def main(arguments: list[str] | None = None) -> int:
    """Runs a subcommand; what a user can mend is one line on stderr and status 1."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    chosen = parser.instantiate(parsed)[parsed.subcommand]
    try:
        if parsed.subcommand == "physics":
            run_physics(chosen, chosen.world)
        else:
            run_scan(chosen, chosen.clips)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
