"""`build`: encodes videos into a cache, all of them or one part."""

import os
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = """Encodes all clips of videos, sampled as the codecs were trained. A build that was stopped, by whatever,
goes on where it was when the same command is given again. Several processes or jobs can each build a part (--part
3/16); the one that finishes last makes the cache of all. OUT.zarr.building holds what is finished meanwhile, so that
for a moment twice the size of the cache is needed."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("videos", type=str, help="folder of videos, one video, a glob, or the manifest of a scan")
    parser.add_argument("out", type=str, help="the cache to write, OUT.zarr")
    parser.add_argument(
        "--codec", type=str, nargs="+", required=True, help="runs: a picture codec, perhaps a sound codec"
    )
    parser.add_argument("--clips.num_frames", type=int, default=40, help="frames of one clip")
    parser.add_argument("--heldout", type=float, default=0.1, help="share of the videos kept for evaluation")
    parser.add_argument("--batch", type=int, default=32, help="clips encoded at a time, and kept at a time")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that decode, and without a GPU encode too; 0 takes one per processor",
    )
    parser.add_argument("--part", type=str, default="1/1", help="build only this part of so many, 1/16 to 16/16")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch where the codecs run on the CPU")
    parser.add_argument("--thumbnail", type=int, default=32, help="shorter side of the thumbnails")
    parser.add_argument(
        "--archive",
        action="store_true",
        help="compress, and pack into few files: smaller, and slower to read at random",
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="replace a cache that is there, or drop what is finished of another build",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Encodes all videos, or a part, and prints what came of it."""
    import torch

    from streams.addresses import find_known
    from streams.videos import VideoSource
    from tools.latents.codecs import load_codecs
    from tools.latents.info import describe
    from worldmodel.cache.build import BuildOptions, encode_videos
    from worldmodel.cache.building import Work, parse_part
    from worldmodel.cache.encoding import clip_settings
    from worldmodel.cache.latents import LatentCache

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = BuildOptions(
        heldout=arguments.heldout,
        batch_size=_at_least_one("--batch", arguments.batch),
        thumbnail_side=_at_least_one("--thumbnail", arguments.thumbnail),
        device=device,
        num_threads=_at_least_one("--threads", arguments.threads),
        part=parse_part(arguments.part),
        num_workers=arguments.workers or len(os.sched_getaffinity(0)),
        profile="archive" if arguments.archive else "mapped",
        overwrite=arguments.overwrite,
    )
    out = Path(arguments.out)
    codecs = [codec.to(device) for codec in load_codecs(arguments.codec)]
    source = VideoSource(find_known(arguments.videos), clip_settings(codecs, arguments.clips.num_frames))
    runs = [str(Path(each).absolute()) for each in arguments.codec]
    if encode_videos(source, codecs, out, options, runs=runs) is None:
        print(f"{out}: part {arguments.part} is finished; {Work(out).progress()}")
    else:
        print("\n".join(describe(LatentCache(out))))


def _at_least_one(name: str, value: int) -> int:
    from worldmodel.errors import SettingsError

    if value < 1:
        raise SettingsError(f"{name} {value}: give 1 or more")
    return value
