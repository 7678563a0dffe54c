"""`sample`: what the codes of a few clips look and sound like."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = """Decodes a few clips, evenly chosen, and writes them one after another as OUT.mp4, with their sound if
there is any, and one above the other as a contact sheet, OUT.png."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("cache", type=str, help="a cache, or the address of one")
    parser.add_argument("out", type=str, help="the video to write, OUT.mp4, with OUT.png beside it")
    parser.add_argument(
        "--codec", type=str, nargs="*", default=[], help="runs that made it; those that the cache names if left out"
    )
    parser.add_argument("--num_clips", type=int, default=8, help="clips to show")
    return parser


def run(arguments: Namespace) -> None:
    """Writes both and says where."""
    import torch

    from streams.pyav.writer import write_video
    from tools.latents.codecs import decode_clip, find_codecs
    from worldmodel.cache.latents import LatentCache
    from worldmodel.errors import SettingsError
    from worldmodel.evaluation.films import joined_sound, strip_of, watchable
    from worldmodel.evaluation.pictures import save_png

    if arguments.num_clips < 1:
        raise SettingsError(f"--num_clips {arguments.num_clips}: give 1 or more")
    cache = LatentCache(arguments.cache)
    codecs = find_codecs(cache, arguments.codec)
    count = min(arguments.num_clips, cache.num_clips)
    shown = [decode_clip(cache, codecs, index * cache.num_clips // count) for index in range(count)]
    settings = codecs[0].clips
    film, sheet = Path(arguments.out).with_suffix(".mp4"), Path(arguments.out).with_suffix(".png")
    film.parent.mkdir(parents=True, exist_ok=True)
    heard = [joined_sound(clip, settings) for clip in shown]
    length = max((len(sound) for sound in heard if sound is not None), default=0)
    parts = [torch.zeros(length) if sound is None else sound for sound in heard]
    frames = torch.cat([clip.frames for clip in shown])
    sound = torch.cat(parts) if length else None
    factor = watchable(*frames.shape[-2:])
    write_video(film, frames, settings.frames_per_second, sound, settings.sample_hz, factor=factor)
    labels = [f"{Path(clip.video).stem[-20:]} {float(clip.seconds[0]):.1f} s" for clip in shown]
    rows = {f"{number}: {label}": clip for number, (label, clip) in enumerate(zip(labels, shown, strict=True))}
    save_png(strip_of(rows, None, settings), sheet)
    print(f"{film} and {sheet}: {count} of {cache.num_clips} clips")
