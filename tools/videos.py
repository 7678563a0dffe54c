"""Videos: `python -m tools.videos physics FOLDER` writes clips of the physics world, `scan VIDEOS` examines files."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from streams.settings import PhysicsSettings, ScanSettings
from tools.exit_status import exit_status

SCAN = """Decodes every file in a child process and writes what is in it to a manifest, a CSV and a contact sheet. A
scan that was stopped goes on where it was when it is started again, and files that have not changed since are kept."""


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
    scan = ArgumentParser(description=SCAN)
    scan.add_argument("videos", type=str, help="folder of videos, one video, a glob, a manifest, or an address")
    scan.add_argument("--out", type=str, default="manifest.parquet", help="manifest to write, with a .csv beside it")
    scan.add_argument("--workers", type=int, default=0, help="processes; 0 takes one per processor")
    scan.add_argument(
        "--again", type=bool, nargs="?", const=True, default=False, help="decode unchanged files again too"
    )
    scan.add_argument("--sheet_files", type=int, default=300, help="most files on the contact sheet; 0 draws none")
    scan.add_class_arguments(ScanSettings)
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


def run_scan(arguments: Namespace) -> None:
    """Examines all files; writes the manifest and the contact sheet, and prints a report."""
    from streams.scan import scan
    from tools.contact_sheet import draw_sheet
    from tools.scan_report import report

    names = [field.name for field in dataclasses.fields(ScanSettings)]
    settings = ScanSettings(**{name: arguments[name] for name in names})
    num_workers = arguments.workers or os.cpu_count() or 1
    out = Path(arguments.out)
    manifest = scan(arguments.videos, out, settings, num_workers, arguments.again)
    print("\n".join(report(manifest)))
    print(f"manifest      {out} and {out.with_suffix('.csv')}")
    if arguments.sheet_files:
        sheet = out.with_suffix(".png")
        num_drawn = draw_sheet(manifest, sheet, settings, num_workers, arguments.sheet_files)
        print(f"contact sheet {sheet} ({num_drawn} of {len(manifest.entries)} files)")


def main(arguments: list[str] | None = None) -> int:
    """Runs a subcommand; what a user can mend is one line on stderr and status 1."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    chosen = parser.instantiate(parsed)[parsed.subcommand]
    if parsed.subcommand == "physics":
        return exit_status(lambda: run_physics(chosen, chosen.world))
    return exit_status(lambda: run_scan(chosen))


if __name__ == "__main__":
    sys.exit(main())
