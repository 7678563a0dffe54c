"""What a scan found, in lines for people."""

from collections import Counter
from collections.abc import Iterable, Iterator

from streams.manifest import Entry, Manifest

# Sound that starts or drifts by less than this beside the pictures is in step.
IN_STEP_SECONDS = 0.04
MAX_LINES = 200


def report(manifest: Manifest) -> Iterator[str]:
    """The report: what can be used, what it is made of, sound beside pictures, and everything odd by file."""
    usable = manifest.usable
    hours = sum(entry.duration_seconds for entry in usable) / 3600
    num_frames, num_bytes = sum(entry.num_frames for entry in usable), sum(entry.size_bytes for entry in usable)
    yield f"files         {len(manifest.entries)}: {len(usable)} usable, {len(manifest.entries) - len(usable)} not"
    yield f"usable        {hours:.3f} hours, {num_frames} frames, {num_bytes / 1e6:.1f} MB"
    yield f"containers    {_counted(entry.container.partition(',')[0] for entry in usable)}"
    yield f"codecs        {_counted(entry.codec for entry in usable)}"
    yield f"readers       {_counted(entry.reader for entry in usable)}"
    yield f"sizes         {_counted(f'{entry.width}x{entry.height}' for entry in usable)}"
    yield f"rates         {_counted(f'{entry.true_rate:.3g}' for entry in usable)} frames per second"
    yield f"variable rate {sum(entry.variable_rate for entry in usable)}"
    yield f"rotated       {sum(entry.rotation % 360 != 0 for entry in usable)}"
    yield f"edit lists    {sum(entry.edit_list for entry in usable)}"
    yield f"scene cuts    {sum(len(entry.cuts_seconds) for entry in usable)}"
    yield f"duplicates    {sum(bool(entry.duplicate_of) for entry in manifest.entries)}"
    yield f"splits        {_counted(entry.split for entry in usable)}"
    yield from _sound(usable)
    unusable = [f"  {_name(entry)}: {'; '.join(entry.problems)}" for entry in manifest.entries if not entry.reader]
    yield from _some("not usable", unusable)
    yield from _some("usable, but", [f"  {_name(entry)}: {text}" for entry in usable for text in entry.problems])


def _sound(usable: list[Entry]) -> Iterator[str]:
    heard = [entry for entry in usable if entry.has_sound]
    yield f"sound         {len(heard)} of {len(usable)}, {sum(entry.is_silent for entry in heard)} of them silent"
    kinds = (f"{entry.sound_codec} {entry.sample_hz} Hz {entry.num_channels} ch" for entry in heard)
    yield f"sound codecs  {_counted(kinds)}"
    lines = [
        f"  {entry.sound_offset_seconds:+9.3f} {entry.sound_drift_seconds:+9.4f} {entry.sound_seconds:9.3f} "
        f"{entry.duration_seconds:9.3f} {entry.sound_peak_db:8.1f}  {_name(entry)}{_out_of_step(entry)}"
        for entry in heard
    ]
    if lines:
        yield "sound against pictures, in seconds: it starts after them, drifts, lasts; they last; its peak in dB"
        yield from _some("", lines)


def _out_of_step(entry: Entry) -> str:
    marks = []
    if abs(entry.sound_offset_seconds) >= IN_STEP_SECONDS:
        marks.append("late" if entry.sound_offset_seconds > 0 else "early")
    if abs(entry.sound_drift_seconds) >= IN_STEP_SECONDS:
        marks.append("drifts")
    if entry.sound_offset_seconds + entry.sound_seconds < entry.duration_seconds - IN_STEP_SECONDS:
        marks.append("ends early")
    return f"  ({', '.join(marks)})" if marks else ""


def _name(entry: Entry) -> str:
    """The path on one line, whatever is in it."""
    return entry.path if entry.path.isprintable() else repr(entry.path)


def _counted(words: Iterable[str]) -> str:
    common = Counter(words).most_common(9)
    return ", ".join(f"{word or 'none'} {count}" for word, count in common[:8]) + (", …" if len(common) > 8 else "")


def _some(title: str, lines: list[str]) -> Iterator[str]:
    if lines and title:
        yield title
    yield from lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        yield f"  … and {len(lines) - MAX_LINES} more, in the CSV"
