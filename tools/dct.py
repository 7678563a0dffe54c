"""Bits of a DCT codec's codes by frequency: `python -m tools.dct RUN VIDEOS`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from tools.exit_status import exit_status

if TYPE_CHECKING:
    from worldmodel.codecs.coefficient_statistics import FrequencyBits


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.dct", description=__doc__)
    parser.add_argument("run", type=str, help="run of `worldmodel tokenizer --family dct`")
    parser.add_argument("videos", type=str, help="folder of videos, one video, or a glob")
    parser.add_argument(
        "--num_clips", type=int, default=32, help="clips that are counted, evenly spaced over the videos"
    )
    return parser


def run_statistics(arguments: Namespace) -> None:
    """Counts the codes of clips and prints their bits; the first half of the clips is the reference of the others."""
    import numpy as np

    from streams.addresses import find_known
    from streams.clip import to_float
    from streams.videos import VideoSource
    from worldmodel.codecs.coefficient_statistics import CoefficientStatistics
    from worldmodel.codecs.dct import PictureDCT
    from worldmodel.codecs.store import load_codec
    from worldmodel.errors import SettingsError

    codec = load_codec(Path(arguments.run))
    if not isinstance(codec, PictureDCT):
        raise SettingsError(f"{arguments.run} is a codec of family {codec.family}: give one of family dct")
    source = VideoSource(find_known(arguments.videos), codec.clips)
    count = min(arguments.num_clips, len(source))
    if count < 2:
        raise SettingsError(f"{count} clips in {arguments.videos}: two are needed, of which one is the reference")
    reference, counted = CoefficientStatistics(codec), CoefficientStatistics(codec)
    bits = []
    for number in range(count):
        clip = source.read(number * len(source) // count, np.random.default_rng(number))
        codes = codec.encode(to_float(clip.frames)[None])
        (reference if number < count // 2 else counted).add(codes.numpy())
        bits.append(float(codec.bits(codes).double().mean()))
    source.close()
    print("\n".join(table(counted.rows(reference))))
    print(f"as JPEG codes them: {np.mean(bits):.0f} bits per frame over {count} clips")


def table(rows: Sequence["FrequencyBits"]) -> list[str]:
    """One line for every frequency, and one for all of a colour."""
    lines = [
        "bits per value, and over the values that are not zero; cross-entropy by the values of the first half of clips",
        f"{'layer':>5} {'colour':<7}{'zigzag':>6}{'non-zero':>10}{'entropy':>10}{'cross':>10}"
        f"{'entropy/nz':>12}{'cross/nz':>12}",
    ]
    lines += [
        f"{row.layer:>5} {row.colour:<7}{row.frequency:>6}{row.num_nonzero / row.num_values:>10.2%}{row.entropy:>10.3f}"
        f"{row.cross_entropy:>10.3f}{row.entropy_per_nonzero:>12.2f}{row.cross_entropy_per_nonzero:>12.2f}"
        for row in rows
    ]
    for layer, colour in dict.fromkeys((row.layer, row.colour) for row in rows):
        part = [row for row in rows if (row.layer, row.colour) == (layer, colour)]
        values, nonzero = sum(row.num_values for row in part), sum(row.num_nonzero for row in part)
        entropy = sum(row.entropy * row.num_values for row in part)
        cross = sum(row.cross_entropy * row.num_values for row in part)
        lines.append(
            f"{layer:>5} {colour:<7}{'all':>6}{nonzero / values:>10.2%}{entropy / values:>10.3f}{cross / values:>10.3f}"
            f"{entropy / max(1, nonzero):>12.2f}{cross / max(1, nonzero):>12.2f}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return exit_status(lambda: run_statistics(arguments))


if __name__ == "__main__":
    sys.exit(main())
