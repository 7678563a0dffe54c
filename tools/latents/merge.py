"""`merge`: makes the cache of parts, or another form of a cache."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = """Makes the cache of parts that `build --part` has finished; the part that finishes last does so itself,
so this is for when it was stopped while it did, or to ask what is missing. With --out, copies a finished cache, with
--archive to compress it."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("cache", type=str, help="the cache, OUT.zarr, whose parts are in OUT.zarr.building")
    parser.add_argument("--out", type=str, default="", help="copy a finished cache to this new one")
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
    from worldmodel.cache.latents import LatentCache

    profile = "archive" if arguments.archive else "mapped"
    if arguments.out:
        copy_cache(LatentCache(arguments.cache), Path(arguments.out), profile)
    else:
        Work(Path(arguments.cache)).put_together(profile)
    print("\n".join(describe(LatentCache(arguments.out or arguments.cache))))
