"""Damage on purpose: `python -m tools.fuzz FOLDER` flips, cuts and splices videos, then scans and reads them.

Every damaged file is a pure function of the seed, its number and the videos: `--first N --num-files 1` makes one again.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from streams.errors import MediaError, UserError
from streams.settings import ScanSettings

if TYPE_CHECKING:
    from streams.children import Failure
    from tools.damage import Outcome

MAX_LINES = 30


def run(
    videos: Sequence[Path], numbers: Sequence[int], seed: int, settings: ScanSettings, num_workers: int
) -> "dict[int, Outcome | Failure]":
    """What came of every number.

    Raises:
        MediaError: none of the videos can be used.
    """
    from tqdm import tqdm

    from streams.children import run_in_children
    from streams.examine import examine
    from streams.manifest import Entry
    from tools.damage import try_one

    scanned = run_in_children(
        partial(examine, settings=settings), videos, lambda _: settings.seconds_limit, num_workers, 2 << 30
    )
    entries = [entry for _, entry in scanned if isinstance(entry, Entry) and entry.content_hash and entry.size_bytes]
    entries.sort(key=lambda entry: entry.path)
    if not any(entry.reader for entry in entries):
        raise MediaError(f"none of {len(videos)} videos can be used; give a folder with good ones")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        work = partial(try_one, Path(folder), entries, seed, settings)
        limit = settings.memory_limit_bytes
        done = run_in_children(work, numbers, lambda _: settings.seconds_limit, num_workers, limit)
        return dict(tqdm(done, total=len(numbers), unit="file", desc="fuzz"))


def report(outcomes: "dict[int, Outcome | Failure]", seed: int) -> list[str]:
    """The counts, and every number that ended its process."""
    from streams.children import Failure

    good = [outcome for outcome in outcomes.values() if not isinstance(outcome, Failure)]
    failures = {number: outcome for number, outcome in sorted(outcomes.items()) if isinstance(outcome, Failure)}
    lines = [f"damaged files {len(outcomes)} with seed {seed}"]
    for name, values in (
        ("kinds", (outcome.kind for outcome in good)),
        ("by hash", ("refused" if outcome.is_refused_by_hash else "NOT REFUSED" for outcome in good)),
        ("scanned", (outcome.scanned for outcome in good)),
        ("read", (outcome.read for outcome in good)),
        ("blindly", (outcome.blind for outcome in good)),
        ("ended", (failure.reason for failure in failures.values())),
    ):
        lines.append(f"{name:<13} {', '.join(f'{word} {count}' for word, count in Counter(values).most_common()) or 0}")
    lines.append(f"peak memory   {max((outcome.peak_bytes for outcome in good), default=0) / 2**20:.0f} MiB")
    return lines + [f"  number {number}: {failure.reason}" for number, failure in failures.items()][:MAX_LINES]


def main(arguments: list[str] | None = None) -> int:
    """Prints the counts; the status tells whether a damaged file was taken for the one before, or memory ran over."""
    parser = ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("videos", type=str, help="folder of videos, one video, or a glob")
    parser.add_argument("--num-files", type=int, default=5000, help="damaged files to try")
    parser.add_argument("--seed", type=int, default=0, help="decides all damage")
    parser.add_argument("--first", type=int, default=0, help="number of the first damaged file")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="larger videos are left out")
    parser.add_class_arguments(ScanSettings, "limits")
    parsed = parser.parse_args(arguments)
    limits = parser.instantiate(parsed).limits
    from streams.addresses import find_videos
    from streams.children import Failure

    try:
        found = [video for video in find_videos(parsed.videos) if isinstance(video, Path)]
        videos = [video.absolute() for video in found if video.is_file() and video.stat().st_size <= parsed.max_bytes]
        numbers = range(parsed.first, parsed.first + parsed.num_files)
        outcomes = run(videos, numbers, parsed.seed, limits, parsed.workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(report(outcomes, parsed.seed)))
    good = [outcome for outcome in outcomes.values() if not isinstance(outcome, Failure)]
    is_safe = all(each.is_refused_by_hash and each.peak_bytes <= limits.memory_limit_bytes for each in good)
    return 0 if is_safe else 1


if __name__ == "__main__":
    sys.exit(main())
