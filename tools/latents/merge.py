"""`merge`: makes the cache of parts, one cache of several, or another form of a cache."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = """Makes the cache of parts that `build --part` has finished; the part that finishes last does so itself,
so this is for when it was stopped while it did, or to ask what is missing. With --out, copies a finished cache, with
--archive to compress it, or joins several of different videos by the same codecs: all clips of the first, then all of
the second, and so on."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument(
        "caches",
        type=str,
        nargs="+",
        metavar="CACHE",
        help="OUT.zarr, whose parts are in OUT.zarr.building; with --out one finished cache or several",
    )
    parser.add_argument("--out", type=str, default="", help="copy or join finished caches to this new one")
    parser.add_argument(
        "--archive",
        action="store_true",
        help="compress, and pack into few files: smaller, and slower to read at random",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Makes the cache and prints what is in it."""
    from tools.latents.info import describe
    from worldmodel.cache.building import Work
    from worldmodel.cache.copying import copy_cache
    from worldmodel.cache.joining import join_caches
    from worldmodel.cache.latents import LatentCache
    from worldmodel.errors import SettingsError

    profile, (first, *others) = "archive" if arguments.archive else "mapped", arguments.caches
    if others and not arguments.out:
        raise SettingsError(f"{len(others) + 1} caches to join, but no name for the new one: give --out")
    if others:
        join_caches([LatentCache(cache) for cache in arguments.caches], Path(arguments.out), profile)
    elif arguments.out:
        copy_cache(LatentCache(first), Path(arguments.out), profile)
    else:
        Work(Path(first)).put_together(profile)
    print("\n".join(describe(LatentCache(arguments.out or first))))
