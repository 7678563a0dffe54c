"""How sound stands to picture: `python -m tools.sync VIDEOS ...` measures every file and prints a table."""

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from streams.addresses import Address
from streams.errors import MediaError
from tools.exit_status import exit_status

# What a viewer may notice, or a model.
NOTICED_SECONDS = 0.005
HEADER = f"{'offset':>9} {'drift':>8} {'gaps':>8} {'short':>9} {'priming':>7} {'peak':>7}  {'sound':<24} file"
UNITS = f"{'ms':>9} {'ms':>8} {'ms':>8} {'ms':>9} {'samples':>7} {'dB':>7}"


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.sync", description=__doc__)
    parser.add_argument("videos", type=str, nargs="+", help="folders of videos, videos, or globs")
    return parser


def sync_report(paths: Sequence[Address]) -> list[str]:
    """Measures files, decoding all of their sound.

    Returns:
        A table with one line for each file, in their order, and a last line that counts what deserves a look.
    """
    from tqdm import tqdm

    lines = [HEADER, UNITS]
    counts: dict[str, int] = {}
    for path in tqdm(paths, unit="file", desc="sync", disable=None):
        line, remarks = report_of(path)
        lines.append(line)
        for remark in remarks:
            counts[remark] = counts.get(remark, 0) + 1
    told = ", ".join(f"{count} {remark}" for remark, count in sorted(counts.items())) or "nothing to remark"
    return [*lines, f"{len(paths)} files: {told}"]


def report_of(path: Address) -> tuple[str, list[str]]:
    """One file's line, and what deserves a look in it."""
    from streams.pyav.sync import measure_sync

    try:
        sync = measure_sync(path)
    except MediaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return f"{'not measured':>53}  {'':<24} {printable(path)} ({printable(reason)})", ["not measured"]
    if sync is None:
        return f"{'no sound':>53}  {'':<24} {printable(path)}", ["without sound"]
    checks = {
        "silent": sync.silent,
        "late sound": (sync.offset_seconds or 0) > NOTICED_SECONDS,
        "late picture": (sync.offset_seconds or 0) < -NOTICED_SECONDS,
        "drifting": abs(sync.drift_seconds) > NOTICED_SECONDS,
        "with gaps": sync.gap_seconds + sync.overlap_seconds > 0,
        "short sound": (sync.short_seconds or 0) > 0.1,
    }
    remarks = [name for name, found in checks.items() if found]
    numbers = f"{milliseconds(sync.offset_seconds):>9} {milliseconds(sync.drift_seconds):>8} "
    numbers += f"{milliseconds(sync.gap_seconds + sync.overlap_seconds):>8} {milliseconds(sync.short_seconds):>9} "
    numbers += f"{sync.priming_samples:>7} {sync.peak_db:>7.1f}"
    sound = f"{sync.codec} {sync.sample_hz} Hz, {sync.num_channels} ch"
    told = f" ({', '.join(remarks)})" if remarks else ""
    return f"{numbers}  {sound:<24} {printable(path)}{told}", remarks


def milliseconds(seconds: float | None) -> str:
    """To a tenth; a dash where there is nothing to compare."""
    return "-" if seconds is None else f"{round(seconds * 1000, 1) + 0.0:.1f}"


def printable(text: object) -> str:
    """On one line whatever a name holds."""
    return str(text) if str(text).isprintable() else ascii(str(text))


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; what a user can mend is one line on stderr and status 1."""
    given = build_parser().parse_args(arguments).videos

    def run() -> None:
        from streams.addresses import find_videos

        print("\n".join(sync_report([path for videos in given for path in find_videos(videos)])))

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
