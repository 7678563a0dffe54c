"""Many files to a manifest, each examined in a child process that may hang or crash."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from upath import UPath

from streams.addresses import (
    Address,
    address_errors,
    address_of,
    content_hash,
    find_videos,
    suffix_of,
    text_of,
)
from streams.children import Failure, run_in_children
from streams.errors import MediaError
from streams.examine import alone, examine, facts_of_file, refused
from streams.manifest import MANIFEST_SUFFIXES, Entry, Manifest
from streams.settings import ScanSettings

# What is known so far is written this often, so that a scan that is stopped goes on from there.
SAVE_SECONDS = 20.0
MEGABYTE = 1_000_000

# A file, and what is known of it without opening it.
Job = tuple[Address, Entry]


def scan(
    videos: str | Address,
    out: Path,
    settings: ScanSettings,
    num_workers: int = 1,
    again: bool = False,
    work: Callable[[Address, ScanSettings], Entry] = examine,
) -> Manifest:
    """Examines all videos and writes the manifest; files that an earlier manifest has unchanged are not decoded again.

    Args:
        videos: folder, file, glob, manifest (all of its files) or address.
        out: the manifest to write, parquet, with CSV beside it.
        settings: limits and shares.
        num_workers: child processes.
        again: decode unchanged files too, for example under other limits.
        work: what examines one file (a function of a module); tests give one that hangs.

    Raises:
        MediaError: there are no videos, or `out` is another kind of file.
    """
    from tqdm import tqdm

    out = out.absolute()
    if out.suffix.lower() not in MANIFEST_SUFFIXES:
        raise MediaError(f"{out}: a manifest ends in .parquet, with a .csv beside it; give another name")
    partial = out.with_name(f".{out.stem}.partial.parquet")
    known = {} if again else known_entries(out.with_suffix(".parquet"), partial)
    addresses = all_addresses(videos, settings.timeout_seconds)
    entries: dict[str, Entry] = {}
    saved = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(addresses), unit="file", desc="scan", smoothing=0.02) as progress:
        try:
            for entry in examine_all(addresses, known, settings, num_workers, work):
                entries[entry.path] = entry
                progress.update()
                progress.set_postfix_str(f"{sum(not each.reader for each in entries.values())} unusable", refresh=False)
                if time.monotonic() - saved > SAVE_SECONDS:
                    Manifest(tuple(entries.values())).write(partial)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            Manifest(tuple(entries.values())).write(partial)
            raise
    manifest = Manifest(tuple(settle(entries.values(), settings)))
    manifest.write(out)
    for rest in (partial, partial.with_suffix(".csv")):
        rest.unlink(missing_ok=True)
    return manifest


def known_entries(*paths: Path) -> dict[str, Entry]:
    """Entries of earlier manifests, those that are there, by path; a later manifest's count more."""
    return {entry.path: entry for path in paths if path.exists() for entry in Manifest.read(path).entries}


def all_addresses(videos: str | Address, timeout_seconds: float) -> list[Address]:
    """What `find_videos` finds, absolute; of a manifest also the files that could not be used."""
    address = address_of(videos, timeout_seconds)
    if suffix_of(address) in MANIFEST_SUFFIXES and (isinstance(address, UPath) or address.is_file()):
        with address_errors(address):
            return [address_of(entry.path, timeout_seconds) for entry in Manifest.read(address).entries]
    found = find_videos(address, timeout_seconds)
    return [each.absolute() if isinstance(each, Path) else each for each in found]


def examine_all(
    addresses: Iterable[Address],
    known: dict[str, Entry],
    settings: ScanSettings,
    num_workers: int,
    work: Callable[[Address, ScanSettings], Entry],
) -> Iterator[Entry]:
    """The entry of every file, in any order."""
    jobs: list[Job] = []
    for address in addresses:
        entry = Entry(text_of(address))
        try:
            size, modified = facts_of_file(address)
            entry = replace(entry, size_bytes=size, modified_seconds=modified)
            earlier = same_file(address, entry, known.get(entry.path))
        except (MediaError, OSError) as error:
            yield refused(entry, address, error)
            continue
        if earlier is not None:
            yield earlier
        else:
            jobs.append((address, entry))

    failures: list[tuple[Job, Failure]] = []
    for job, outcome in examine_jobs(jobs, settings, num_workers, work):
        if isinstance(outcome, Entry):
            yield outcome
        else:
            failures.append((job, outcome))
    # It may have been another library than PyAV that crashed or hung.
    cautious = alone(settings)
    again = [job for job, _ in failures] if settings != cautious else []
    for job, outcome in examine_jobs(again, cautious, num_workers, work) if again else failures:
        yield outcome if isinstance(outcome, Entry) else failed(job[1], outcome)


def failed(entry: Entry, failure: Failure) -> Entry:
    """The entry of a file whose child process came to no result."""
    return replace(entry, problems=(f"{failure.reason}; leave it out",))


def examine_jobs(
    jobs: list[Job], settings: ScanSettings, num_workers: int, work: Callable[[Address, ScanSettings], Entry]
) -> Iterator[tuple[Job, Entry | Failure]]:
    """What comes of every file that is examined in a child process, in any order."""

    def limit_seconds_of(job: Job) -> float:
        return settings.seconds_limit + settings.seconds_per_megabyte * job[1].size_bytes / MEGABYTE

    work_on = functools.partial(examine_job, work, settings)
    return run_in_children(work_on, jobs, limit_seconds_of, num_workers, settings.memory_limit_bytes)


def examine_job(work: Callable[[Address, ScanSettings], Entry], settings: ScanSettings, job: Job) -> Entry:
    """What a child does with one file."""
    return work(job[0], settings)


def same_file(address: Address, entry: Entry, earlier: Entry | None) -> Entry | None:
    """The earlier entry if the file is the same: by size and time of change, or else by its content.

    Files that could not be read at all have no hash, and are examined again.
    """
    if earlier is None or not earlier.content_hash or earlier.size_bytes != entry.size_bytes:
        return None
    if entry.modified_seconds and earlier.modified_seconds == entry.modified_seconds:
        return earlier
    if content_hash(address) != earlier.content_hash:
        return None
    return replace(earlier, modified_seconds=entry.modified_seconds)


def settle(entries: Iterable[Entry], settings: ScanSettings) -> Iterator[Entry]:
    """Entries by path, with their split and the first file of the same content."""
    first: dict[str, str] = {}
    for entry in sorted(entries, key=lambda each: each.path):
        original = first.setdefault(entry.content_hash, entry.path) if entry.content_hash else entry.path
        yield replace(
            entry, duplicate_of="" if original == entry.path else original, split=split_of(entry.content_hash, settings)
        )


def split_of(content_hash: str, settings: ScanSettings) -> str:
    """The part of the data that a content belongs to, whatever other files there are."""
    if not content_hash:
        return ""
    place = int(content_hash[:13], 16) / 16**13
    if place < settings.test_share:
        return "test"
    return "validation" if place < settings.test_share + settings.validation_share else "train"
