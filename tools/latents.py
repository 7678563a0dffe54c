"""Latent caches: `python -m tools.latents build VIDEOS OUT.zarr --codec RUN` writes one; `info`, `verify` read it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from streams.errors import UserError

if TYPE_CHECKING:
    from worldmodel.cache.latents import CacheInfo, LatentCache


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.latents", description=__doc__)
    commands = parser.add_subcommands(required=True)
    build = ArgumentParser(description="Encodes all clips of videos, sampled as the codecs were trained.")
    build.add_argument("videos", type=str, help="folder of videos, one video, or a glob")
    build.add_argument("out", type=str, help="the cache to write, OUT.zarr")
    build.add_argument(
        "--codec", type=str, nargs="+", required=True, help="runs: a picture codec, perhaps a sound codec"
    )
    build.add_argument("--clips.num_frames", type=int, default=40, help="frames of one clip")
    build.add_argument("--heldout", type=float, default=0.1, help="share of the videos kept for evaluation")
    build.add_argument("--batch", type=int, default=32, help="clips encoded at a time")
    build.add_argument("--threads", type=int, default=1, help="threads of torch where the codecs run on the CPU")
    build.add_argument("--thumbnail", type=int, default=32, help="shorter side of the thumbnails")
    build.add_argument(
        "--overwrite", type=bool, nargs="?", const=True, default=False, help="replace a cache that is there"
    )
    commands.add_subcommand("build", build)
    info = ArgumentParser(description="Prints what a cache holds and how it was made.")
    info.add_argument("cache", type=str, help="a cache")
    commands.add_subcommand("info", info)
    verify = ArgumentParser(
        description="Compares every chunk with its checksum, and with --codec a sample of the codes."
    )
    verify.add_argument("cache", type=str, help="a cache")
    verify.add_argument("--codec", type=str, nargs="*", default=[], help="runs that made it: encode a sample again")
    verify.add_argument("--num_clips", type=int, default=4, help="clips to encode again")
    commands.add_subcommand("verify", verify)
    return parser


def run_build(arguments: Namespace) -> None:
    """Encodes all videos and prints what came of it."""
    import torch

    from streams.addresses import find_known
    from streams.videos import VideoSource
    from worldmodel.cache.encoding import clip_settings, encode_videos
    from worldmodel.cache.latents import LatentCache

    out = Path(arguments.out)
    _refuse_existing(out, arguments.overwrite)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codecs = [codec.to(device) for codec in load_codecs(arguments.codec)]
    source = VideoSource(find_known(arguments.videos), clip_settings(codecs, arguments.clips.num_frames))
    encode_videos(
        source,
        codecs,
        out,
        heldout=arguments.heldout,
        batch_size=arguments.batch,
        thumbnail_side=arguments.thumbnail,
        overwrite=arguments.overwrite,
        device=device,
        num_threads=arguments.threads,
    )
    print("\n".join(describe(LatentCache(out))))


def run_info(arguments: Namespace) -> None:
    """Prints what a cache says about itself."""
    from worldmodel.cache.latents import LatentCache

    print("\n".join(describe(LatentCache(arguments.cache))))


def run_verify(arguments: Namespace) -> None:
    """Checks the files of a cache, and with codecs its codes."""
    import numpy as np

    from worldmodel.cache.encoding import check_codes
    from worldmodel.cache.latents import LatentCache, require_codec

    print(f"{arguments.cache}: all {LatentCache(arguments.cache).verify()} chunks are as they were written")
    if arguments.codec:
        codecs = load_codecs(arguments.codec)
        require_codec(arguments.cache, {codec.kind: codec.fingerprint for codec in codecs})
        share = check_codes(arguments.cache, codecs, arguments.num_clips, np.random.default_rng())
        print(f"{share:.2%} of the codes of {arguments.num_clips} clips are what the codec gives now")


def load_codecs(runs: Sequence[str]) -> list[Any]:
    """The codecs of runs, ready to encode."""
    from worldmodel.codecs.store import load_codec

    return [load_codec(Path(run)).eval() for run in runs]


def describe(cache: "LatentCache") -> list[str]:
    """A readable table of a cache."""
    info = cache.info
    num_heldout = len(cache.clips_of("heldout"))
    hours = cache.num_clips * info.num_frames / info.frames_per_second / 3600
    lines = [
        f"cache         {cache.path}",
        f"clips         {cache.num_clips} of {info.num_frames} frames ({num_heldout} held out)",
        f"videos        {len(info.videos)}, {hours:.3f} hours at {info.frames_per_second:g} frames per second",
        f"size          {cache.num_bytes / 2**20:.1f} MiB",
        *(f"codec         {kind} {fingerprint}" for kind, fingerprint in info.fingerprints.items()),
        f"written by    worldmodel {info.package_version}",
        *_scale_table(info),
        f"skipped       {len(info.skipped)}",
    ]
    return lines + [f"  {name}: {reason}" for name, reason in info.skipped]


def _scale_table(info: "CacheInfo") -> list[str]:
    """One line for every scale of every codec, and the codes that change where the picture stands still."""
    head = f"{'codes':<10}{'grid':>8}{'vocabulary':>12}{'used':>8}{'perplexity':>12}{'bits':>8}{'changed':>10}"
    lines = [head]
    for kind in info.pyramids:
        for scale in info.statistics[kind]:
            planes = scale.get("planes", 1)  # caches of before there were several do not say
            grid = "x".join(map(str, scale["grid"] if planes == 1 else [planes, *scale["grid"]]))
            lines.append(
                f"{kind:<10}{grid:>8}{scale['vocabulary']:>12}{scale['used']:>8}{scale['perplexity']:>12.1f}"
                f"{scale['entropy_bits']:>8.2f}{scale['changed']:>10.1%}"
            )
    still = info.statistics["still"]
    if still["changed"] is None:
        return [*lines, "still         no patch of the finest scale stands still"]
    return [
        *lines,
        f"still         {still['changed']:.1%} of {still['num_still']} finest codes change in still patches",
    ]


def _refuse_existing(out: Path, overwrite: bool) -> None:
    """Say so before hours of work, not after."""
    from worldmodel.errors import CacheError

    if out.exists() and not overwrite:
        raise CacheError(f"{out} exists already: give another name, or --overwrite to replace it")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    command = arguments.subcommand
    run = {"build": run_build, "info": run_info, "verify": run_verify}[command]
    try:
        run(arguments[command])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
