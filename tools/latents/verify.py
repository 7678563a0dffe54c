"""`verify`: checks the files of a cache, its values, and by its codec its codes."""

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = """Compares every file with its checksum and all codes with their vocabularies. Then reads a sample of
clips from their videos again, encodes them again by the codecs that made the cache, and compares the codes; and decodes
the codes of the cache and compares the frames."""


def build_parser() -> ArgumentParser:
    """Its command line."""
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("cache", type=str, help="a cache, or the address of one")
    parser.add_argument(
        "--codec", type=str, nargs="*", default=[], help="runs that made it; those that the cache names if left out"
    )
    parser.add_argument("--num_clips", type=int, default=4, help="clips to encode again; 0 compares no codes")
    return parser


def run(arguments: Namespace) -> None:
    """Checks everything, and prints what is right."""
    import numpy as np

    from tools.latents.codecs import find_codecs
    from worldmodel.cache.checking import check_codes, check_files, check_values
    from worldmodel.cache.latents import LatentCache
    from worldmodel.errors import CacheError

    print(f"{arguments.cache}: all {check_files(arguments.cache)} files are as they were written", flush=True)
    cache = LatentCache(arguments.cache)
    check_values(cache)
    print(f"all codes of {cache.num_clips} clips are in their vocabularies", flush=True)
    if arguments.num_clips < 1:
        return
    try:
        codecs = find_codecs(cache, arguments.codec)
    except CacheError as error:
        if arguments.codec:
            raise
        print(f"no codes were compared: {error}")
        return
    sample = check_codes(cache, codecs, arguments.num_clips, np.random.default_rng())
    for kind, share in sample.shares.items():
        print(f"{share:.2%} of the {kind} codes of {sample.num_clips} clips are what the codec gives now")
    print(f"decoded frames have {sample.psnr:.2f} dB and values from {sample.darkest} to {sample.brightest}")
