"""`info`: prints what a cache holds and how it was made."""

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from worldmodel.cache.info import CacheInfo
    from worldmodel.cache.latents import LatentCache


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description="Prints what a cache holds and how it was made.")
    parser.add_argument("cache", type=str, help="a cache, or the address of one")
    return parser


def run(arguments: Namespace) -> None:
    """Prints what a cache says about itself."""
    from worldmodel.cache.latents import LatentCache

    print("\n".join(describe(LatentCache(arguments.cache))))


def describe(cache: "LatentCache") -> list[str]:
    """A readable table of a cache."""
    info = cache.info
    num_heldout = len(cache.clips_of("heldout"))
    hours = cache.num_clips * info.num_frames / info.frames_per_second / 3600
    lines = [
        f"cache         {cache.path}",
        f"clips         {cache.num_clips} of {info.num_frames} frames ({num_heldout} held out)",
        f"videos        {len(info.videos)}, {hours:.3f} hours at {info.frames_per_second:g} frames per second",
        f"size          {cache.num_bytes / 2**20:.1f} MiB, {cache.profile}",
        *(f"codec         {kind} {_codec_of(info, kind)}" for kind in info.fingerprints),
        *(
            [f"built with    {', '.join(f'{name} {value}' for name, value in info.build.items())}"]
            if info.build
            else []
        ),
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


def _codec_of(info: "CacheInfo", kind: str) -> str:
    run = info.codecs.get(kind, {}).get("run")
    return f"{info.fingerprints[kind]} of {run}" if run else info.fingerprints[kind]
