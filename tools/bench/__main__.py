"""Benchmarks: `python -m tools.bench streams` measures the readers of `streams` against their peers in one run."""

import dataclasses
import sys

from jsonargparse import ArgumentParser

from streams.errors import UserError
from tools.bench.settings import StreamsSettings

FLAGS = {
    "quick": "one short file of 256 rows, two rounds: shows in a minute that all works, and measures nothing well",
    "long": "measure the memory of a worker after 20,000 and 200,000 clips too",
}


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.bench", description=__doc__)
    commands = parser.add_subcommands(required=True)
    streams = ArgumentParser(description="Speed, exactness and quality of reading videos, side by side with peers.")
    streams.add_class_arguments(StreamsSettings, skip=set(FLAGS))
    for name, meaning in FLAGS.items():
        streams.add_argument(f"--{name}", action="store_true", help=meaning)
    commands.add_subcommand("streams", streams)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a benchmark; what a user can mend is one line on stderr and status 1."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    chosen = vars(parsed[parsed.subcommand])
    settings = StreamsSettings(**{field.name: chosen[field.name] for field in dataclasses.fields(StreamsSettings)})
    from tools.bench.streams import run

    try:
        run(settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
