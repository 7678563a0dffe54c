"""`worldmodel watch`: a trained model watches a live source and says how much each new frame surprises it."""

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from streams.clip import Clip, to_float
from streams.live import LiveSource
from worldmodel.devices import find_device
from worldmodel.errors import SettingsError
from worldmodel.evaluation.plots import plot_surprise
from worldmodel.model import ModelCache
from worldmodel.run import LoadedRun, load_run
from worldmodel.settings import WatchSettings


@dataclass(frozen=True)
class Surprise:
    """How a frame was seen.

    Attributes:
        seconds: its time in the source.
        bits: bits to tell it, given the frames before it; nan for the first one.
        num_context: frames before it that the model had seen since the last gap.
        delay_seconds: how far the model is behind the source.
        dropped_frames: frames lost so far, since the model was slower than the source.
    """

    seconds: float
    bits: float
    num_context: int
    delay_seconds: float
    dropped_frames: int


class Watcher:
    """Frames one by one in, surprise out: the codecs and the model remember what came before.

    Codes are what `encode_clips` makes of the whole footage since the last gap, and bits are those of
    `WorldObjective.next_frame` on it, at the same cost for every frame.
    """

    def __init__(self, run: LoadedRun) -> None:
        """Has seen nothing yet."""
        self.run = run
        self.device = next(run.objective.parameters()).device
        # Sound is heard as far back as the spectrum of a frame reaches.
        heard = 0 if run.sound is None else run.sound.settings.fft_samples / run.picture.clips.samples_per_frame
        self.num_heard = math.ceil(heard)
        self.forget()

    def forget(self) -> None:
        """Begins anew, as after a gap."""
        self.cache: ModelCache = self.run.model.start()
        self.codes: Tensor | None = None
        self.state: Tensor | None = None
        self.sound: Tensor | None = None
        self.last_seconds: float | None = None
        self.num_seen = 0

    @torch.no_grad()
    def see(self, clip: Clip) -> tuple[float, int]:
        """Bits of the only frame of a clip (nan if it is the first) and the number of frames seen before it."""
        seconds = float(clip.seconds[0])
        step = 1.5 / self.run.picture.clips.frames_per_second
        if self.last_seconds is not None and seconds - self.last_seconds > step:
            self.forget()
        has_sound = torch.tensor([clip.sound is not None], device=self.device)
        codes = self.encode(clip)
        bits, num_context = math.nan, self.num_seen
        if self.state is not None and self.codes is not None:
            pair = torch.stack((self.codes, codes), 1)
            states = self.state[:, None].expand(-1, 2, -1, -1)  # that of the second frame is not looked at
            bits = float(self.run.objective.next_frame(states, pair, pair, has_sound).bits_per_frame())
        self.state = self.run.model.step(codes, has_sound, self.cache)
        self.codes, self.last_seconds, self.num_seen = codes, seconds, self.num_seen + 1
        return bits, num_context

    def encode(self, clip: Clip) -> Tensor:
        """Codes of the only frame of a clip, (1, code); picture then sound."""
        picture, sound = self.run.picture, self.run.sound
        num_picture = picture.pyramid.num_codes
        before = (None, None) if self.codes is None else (self.codes[:, :num_picture], self.codes[:, num_picture:])
        parts = [picture.encode(to_float(clip.frames[None].to(self.device)), before[0])]
        if sound is not None:
            silence = torch.zeros(1, sound.clips.samples_per_frame)
            new = (silence if clip.sound is None else clip.sound)[None].to(self.device)
            heard = new if self.sound is None else torch.cat((self.sound, new), 1)
            parts.append(sound.encode(heard, before[1], num_before=heard.shape[1] - 1))
            self.sound = heard[:, -self.num_heard :]
        return torch.cat(parts, 2)[:, 0]


def watch(run: LoadedRun, source: LiveSource) -> Iterator[Surprise]:
    """Surprise at every frame of a source of clips of one frame.

    Raises:
        MediaError: the source cannot be opened, or breaks off.
    """
    watcher = Watcher(run)
    for clip in source:
        bits, num_context = watcher.see(clip)
        seconds = float(clip.seconds[0])
        yield Surprise(seconds, bits, num_context, source.reading.delay_of(seconds), source.counts.dropped_frames)


def watch_run(settings: WatchSettings) -> list[str]:
    """Run the command: a line per second while it goes, surprise.csv and surprise.png at the end.

    Returns:
        Lines for the user.

    Raises:
        UserError: the run or the source cannot be used.
    """
    if settings.seconds < 0:
        raise SettingsError(f"seconds={settings.seconds} is out of range: it must be 0 or more")
    run = load_run(settings.run, str(find_device(settings.device)))
    clips = replace(run.picture.clips, num_frames=1)
    out = Path(settings.out or Path(settings.run) / "watch")
    out.mkdir(parents=True, exist_ok=True)
    partial, seen = out / "surprise.partial", []
    try:
        source = LiveSource(settings.address, clips, settings.live)
    except ValueError as error:
        raise SettingsError(f"live: {error}") from error
    try:
        with source, partial.open("w", newline="", encoding="utf-8") as file, suppress(KeyboardInterrupt):
            table = csv.writer(file)
            table.writerow([field.name for field in fields(Surprise)])
            for surprise in watch(run, source):
                seen.append(surprise)
                table.writerow(astuple(surprise))
                report(seen, clips.frames_per_second)
                if settings.seconds and surprise.seconds - seen[0].seconds >= settings.seconds:
                    break
    finally:
        # What was seen until a source broke off is kept too.
        partial.replace(out / "surprise.csv")
        if len(seen) > 1:
            plot_surprise([s.seconds for s in seen], [s.bits for s in seen], out / "surprise.png")
    return summary(seen, source, out)


def report(seen: list[Surprise], frames_per_second: float) -> None:
    """A line on the frames of every full second of the source."""
    last = seen[-1]
    if len(seen) < 2 or int(last.seconds) == int(seen[-2].seconds):
        return
    second = [s for s in seen[-2 - round(frames_per_second) : -1] if int(s.seconds) == int(seen[-2].seconds)]
    bits = [s.bits for s in second if math.isfinite(s.bits)]
    shown = f"{sum(bits) / len(bits):8.1f} bits, at most {max(bits):8.1f}" if bits else "nothing before it to compare"
    lost = last.dropped_frames - second[0].dropped_frames
    late = f"; the model is too slow: {lost} frames dropped" if lost else ""
    print(f"{int(second[0].seconds):6d} s  {shown}  delay {last.delay_seconds:5.2f} s{late}", flush=True)


def summary(seen: list[Surprise], source: LiveSource, out: Path) -> list[str]:
    """What was seen in all, and where it is written."""
    counts, bits = source.counts, [s.bits for s in seen if math.isfinite(s.bits)]
    lines = [f"{len(seen)} frames seen; {', '.join(f'{name} {value}' for name, value in vars(counts).items())}"]
    if bits:
        most = max((s for s in seen if math.isfinite(s.bits)), key=lambda s: s.bits)
        lines.append(
            f"{sum(bits) / len(bits):.1f} bits per frame; most surprised at {most.seconds:.2f} s, {most.bits:.1f} bits"
        )
    if counts.dropped_frames:
        lines.append(
            f"the model could not keep up: {counts.dropped_frames} of {counts.frames} frames were dropped; take a GPU, "
            "a smaller model, or a lower frame rate"
        )
    return [*lines, f"{out / 'surprise.csv'}: every frame", *([f"{out / 'surprise.png'}"] if len(seen) > 1 else [])]
