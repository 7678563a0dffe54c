"""`worldmodel evaluate codec`: any codecs on the same held-out frames, in one table, with pictures."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from streams.addresses import address_of, find_known
from streams.clip import Batch
from streams.settings import ClipSettings, SelectionSettings
from streams.videos import SoundSource, VideoSource
from worldmodel.codecs.store import Codec, load_codec
from worldmodel.config import read_settings
from worldmodel.devices import find_device
from worldmodel.errors import MediaError, SettingsError, UserError
from worldmodel.evaluation.codec_pictures import PictureCodec, measure_pictures, picture_of
from worldmodel.evaluation.codec_sounds import SoundCodec, measure_sound, mels_to_show
from worldmodel.evaluation.codec_table import table
from worldmodel.evaluation.pictures import save_png
from worldmodel.evaluation.plots import plot_mels
from worldmodel.evaluation.reading import spread_clips
from worldmodel.folders import find_all, name_of
from worldmodel.run import SETTINGS
from worldmodel.settings import EvaluateCodecSettings, TokenizerSettings
from worldmodel.training import checkpoint


@dataclass(frozen=True)
class Group:
    """Codecs that are given the very same clips, and those clips.

    Attributes:
        codecs: by name, on the device.
        clips: how the clips are sampled.
        batch: the clips.
        lines: what was left out.
    """

    codecs: dict[str, Codec]
    clips: ClipSettings
    batch: Batch
    lines: list[str]


def evaluate_codecs(settings: EvaluateCodecSettings) -> list[str]:
    """Measure, and write codecs.json and a picture of every kind and size.

    Codecs of one kind that sample alike are measured on the same clips and stand in one table.

    Returns:
        Lines for the user: the tables, and the files that were written.

    Raises:
        UserError: a run has no codec, the videos cannot be used, or a setting is out of range.
    """
    for name in ("num_clips", "num_frames"):
        least = 2 if name == "num_frames" else 1
        if getattr(settings, name) < least:
            raise SettingsError(f"{name}={getattr(settings, name)} is out of range: it must be {least} or more")
    device = find_device(settings.device)
    runs = _named(settings.runs)
    codecs = {name: load_codec(run) for name, run in runs.items()}
    out = Path(settings.runs[0]).parent if settings.out is None else Path(settings.out)
    lines, report = [], []
    for names in _alike(codecs):
        group = _read(settings, {name: codecs[name].to(device) for name in names})
        kind = codecs[names[0]].kind
        measures, path = (_pictures if kind == "picture" else _sounds)(group, device, settings.seed, out)
        for name in names:
            measures[name] |= _origin(runs[name], codecs[name], group.batch)
        heading = f"{_title(kind, group.clips)}, {len(group.batch.videos)} clips of {settings.num_frames} frames"
        lines += [*group.lines, f"{heading} from {len(set(group.batch.videos))} videos:"]
        lines += [*table(kind, measures), str(path), ""]
        report.append({"kind": kind, "clips": asdict(group.clips), "videos": group.batch.videos, "codecs": measures})
    return [*lines, str(_write_report(report, settings, device, out))]


def _named(folders: list[str]) -> dict[str, Path]:
    """Runs by the names of their folders, or by their whole paths where two are called alike."""
    if not folders:
        raise SettingsError("no RUN was given: name the folders of codecs that `worldmodel tokenizer` made")
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise SettingsError(f"{path} was given twice: give every run once")
    names = [path.resolve().name for path in paths]
    return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}


def _alike(codecs: dict[str, Codec]) -> list[list[str]]:
    """Names of the codecs that read the same, kind by kind in the order given."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, codec in codecs.items():
        clips = codec.clips
        size = (clips.height, clips.width) if codec.kind == "picture" else (clips.sample_hz,)
        groups.setdefault((codec.kind, clips.frames_per_second, *size), []).append(name)
    return list(groups.values())


def _read(settings: EvaluateCodecSettings, codecs: dict[str, Codec]) -> Group:
    """Clips for these codecs, as many of every video as are needed, spread over all videos.

    Raises:
        MediaError: no clip can be read, or none of them has sound for codecs of sound.
    """
    first = next(iter(codecs.values()))
    clips = replace(first.clips, num_frames=settings.num_frames)
    videos = find_known(settings.videos)
    selection = SelectionSettings("per_video", clips_per_video=-(-settings.num_clips // len(videos)))
    source = (VideoSource if first.kind == "picture" else SoundSource)(videos, clips, selection)
    lines = [f"left out: {path}: {reason}" for path, reason in source.skipped]
    count = min(settings.num_clips, len(source))
    read = list(tqdm(spread_clips(source, count, lines), "reading", count, unit="clip"))
    source.close()
    if first.kind == "sound":
        heard = [clip for clip in read if clip.sound is not None]
        if not heard:
            raise MediaError(
                f"none of the {count} clips of {settings.videos} has sound: give other videos, or no sound codec"
            )
        lines += [f"left out: {len(read) - len(heard)} clips without sound"] if len(heard) < len(read) else []
        read = heard
    return Group(codecs, clips, source.collate(read), lines)


def _pictures(group: Group, device: torch.device, seed: int, out: Path) -> tuple[dict[str, dict[str, Any]], Path]:
    frames, measured = group.batch.frames, {}
    for name, codec in tqdm(group.codecs.items(), "picture codecs", unit="codec"):
        assert isinstance(codec, PictureCodec)
        measured[name] = codec, measure_pictures(codec, frames, group.batch.videos, device, seed)
    path = out / f"codecs_{_size('picture', group.clips)}.png"
    save_png(picture_of(measured, frames, device), path)
    return {name: each.measures for name, (_, each) in measured.items()}, path


def _sounds(group: Group, device: torch.device, seed: int, out: Path) -> tuple[dict[str, dict[str, Any]], Path]:
    sound, measures, coded = group.batch.sound, {}, {}
    for name, codec in tqdm(group.codecs.items(), "sound codecs", unit="codec"):
        assert isinstance(codec, SoundCodec)
        measures[name], coded[name] = measure_sound(codec, sound, group.batch.videos, device, seed)
    path = out / f"codecs_{_size('sound', group.clips)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = group.clips.num_frames / group.clips.frames_per_second
    plot_mels(mels_to_show(coded, sound, group.batch.videos, group.clips.sample_hz), seconds, path)
    return measures, path


def _origin(run: Path, codec: Codec, batch: Batch) -> dict[str, Any]:
    """Where a codec comes from; None for what its folder does not say."""
    newest = checkpoint.newest(run, tell=False)
    return {
        "run": str(run),
        "fingerprint": codec.fingerprint,
        "training_steps": None if newest is None else checkpoint.read(newest)["step"],
        "videos_seen": _num_seen(run, batch),
    }


def _num_seen(run: Path, batch: Batch) -> int | None:
    """How many of the videos were in the folders that a codec was trained on, as far as these can still be read."""
    if not (run / SETTINGS).is_file():
        return None
    try:
        seen = find_all(read_settings(TokenizerSettings, run / SETTINGS).videos)
    except UserError:
        return None
    return sum(name_of(address_of(video)) in seen for video in set(batch.videos))


def _title(kind: str, clips: ClipSettings) -> str:
    if kind == "picture":
        return f"pictures of {clips.width}x{clips.height} at {clips.frames_per_second:g} per second"
    return f"sound at {clips.sample_hz} Hz in {clips.frames_per_second:g} frames per second"


def _size(kind: str, clips: ClipSettings) -> str:
    size = f"{clips.width}x{clips.height}" if kind == "picture" else f"{clips.sample_hz}hz"
    return f"{kind}_{size}_{clips.frames_per_second:g}fps"


def _write_report(
    report: list[dict[str, Any]], settings: EvaluateCodecSettings, device: torch.device, out: Path
) -> Path:
    path = out / "codecs.json"
    partial = path.with_suffix(".partial")
    whole = {"settings": asdict(settings), "device": str(device), "groups": report}
    partial.write_text(json.dumps(whole, indent=2), encoding="utf-8")
    partial.replace(path)
    return path
