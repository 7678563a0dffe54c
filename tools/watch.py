"""Shows what comes from a camera, a pipe or a network stream: `python -m tools.watch ADDRESS`."""

import math
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from streams.errors import UserError
from streams.settings import ClipSettings, LiveSettings

if TYPE_CHECKING:
    from streams.clip import Clip
    from streams.live import LiveSource

SILENCE_DECIBELS = -120.0


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.watch", description=__doc__, epilog="Ctrl-C ends it.")
    address = "/dev/video0, pipe:0 (or -, or a FIFO), rtsp://, http(s)://, tcp://, udp://, rtmp://, or a file"
    parser.add_argument("address", type=str, help=address)
    parser.add_argument("--seconds", type=float, default=0.0, help="footage after which it ends; 0 has no end")
    parser.add_argument("--stride-frames", type=int, help="from the start of one clip to that of the next")
    parser.add_argument("--out", type=str, help="folder for the last frames: last.mp4 and last.png")
    parser.add_argument("--keep-seconds", type=float, default=10.0, help="footage that is kept for --out")
    parser.add_class_arguments(ClipSettings, "clips")
    parser.add_class_arguments(LiveSettings, "live")
    return parser


def decibels(clip: "Clip") -> str:
    """Mean level of the sound, where 0 dB is the loudest that fits."""
    if clip.sound is None:
        return "no sound"
    level = 10 * math.log10(max(float(clip.sound.square().mean()), 10 ** (SILENCE_DECIBELS / 10)))
    return f"sound {level:6.1f} dB"


class Watch:
    """Prints a line per second of waiting, and keeps the last frames."""

    def __init__(self, clips: ClipSettings, keep_seconds: float) -> None:
        """Has seen nothing yet."""
        self.clips = clips
        # Frames overlap where clips do: by its number each is kept once.
        self.kept: deque[tuple[int, Clip, int]] = deque(maxlen=max(1, round(keep_seconds * clips.frames_per_second)))
        self.num_clips = self.num_clips_said = self.frames_said = self.dropped_said = 0
        self.said_at = monotonic()

    def see(self, clip: "Clip", source: "LiveSource") -> None:
        """One more clip."""
        self.num_clips += 1
        for place, seconds in enumerate(clip.seconds.tolist()):
            number = round(seconds * self.clips.frames_per_second)
            if not self.kept or number > self.kept[-1][0]:
                self.kept.append((number, clip, place))
        passed = monotonic() - self.said_at
        if passed >= 1.0:
            print(self.line(clip, source, passed), flush=True)

    def line(self, clip: "Clip", source: "LiveSource", passed: float) -> str:
        """What came since the last line."""
        counts = source.counts
        new_clips, frames = self.num_clips - self.num_clips_said, counts.frames - self.frames_said
        lost = counts.dropped_frames - self.dropped_said
        self.num_clips_said, self.frames_said, self.dropped_said = self.num_clips, counts.frames, counts.dropped_frames
        self.said_at = monotonic()
        return (
            f"{float(clip.seconds[-1]):8.2f} s  {new_clips:3d} clips  {frames / passed:5.1f} frames/s  "
            f"delay {source.delay_seconds:5.2f} s  dropped {lost:3d}  {decibels(clip)}"
        )

    def write(self, folder: Path) -> list[str]:
        """Writes the last frames as a film and a contact sheet; the paths."""
        import torch

        from streams.clip import Clip
        from streams.pyav.writer import write_video
        from worldmodel.evaluation.films import joined_sound, strip_of, watchable
        from worldmodel.evaluation.pictures import save_png

        # A film has no gaps: only what follows the last one is written.
        kept, first = list(self.kept), self.kept[-1][0] - len(self.kept) + 1
        kept = [entry for place, entry in enumerate(kept) if entry[0] == first + place]
        sound = [clip.sound[place] for _, clip, place in kept if clip.sound is not None]
        last = Clip(
            torch.stack([clip.frames[place] for _, clip, place in kept]),
            torch.stack([clip.seconds[place] for _, clip, place in kept]),
            torch.stack(sound) if len(sound) == len(kept) else None,
            kept[-1][1].video,
        )
        folder.mkdir(parents=True, exist_ok=True)
        film, sheet = folder / "last.mp4", folder / "last.png"
        heard = joined_sound(last, self.clips)
        factor = watchable(*last.frames.shape[-2:])
        write_video(film, last.frames, self.clips.frames_per_second, heard, self.clips.sample_hz, factor=factor)
        save_png(strip_of({"frames": last}, None, self.clips), sheet)
        return [f"{film}: the last {len(kept)} frames", f"{sheet}: contact sheet"]


def run_watch(arguments: Namespace, clips: ClipSettings, live: LiveSettings) -> None:
    """Watches until the source ends, the time is over, or Ctrl-C; then says what was lost, and writes."""
    from streams.live import LiveSource

    watch = Watch(clips, arguments.keep_seconds)
    source = LiveSource(arguments.address, clips, live, arguments.stride_frames)
    try:
        with source, suppress(KeyboardInterrupt):
            for clip in source:
                watch.see(clip, source)
                if arguments.seconds and float(clip.seconds[-1]) >= arguments.seconds:
                    break
    finally:
        # What came before a source broke off is shown too.
        counts = ", ".join(f"{name} {value}" for name, value in vars(source.counts).items())
        print(f"{watch.num_clips} clips; {counts}")
        if arguments.out and watch.kept:
            print("\n".join(watch.write(Path(arguments.out))))


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; what a user can mend is one line on stderr and status 1."""
    parser = build_parser()
    chosen = parser.instantiate(parser.parse_args(arguments))
    try:
        run_watch(chosen, chosen.clips, chosen.live)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
