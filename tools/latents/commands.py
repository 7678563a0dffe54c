"""Latent caches: `python -m tools.latents build VIDEOS OUT.zarr --codec RUN` writes one, the others look after it."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from tools.exit_status import exit_status
from tools.latents import build, export, info, merge, sample, verify

COMMANDS = {"build": build, "merge": merge, "info": info, "verify": verify, "sample": sample, "export": export}


def build_parser() -> ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    parser = ArgumentParser(prog="python -m tools.latents", description=__doc__)
    commands = parser.add_subcommands(required=True)
    for name, module in COMMANDS.items():
        commands.add_subcommand(name, module.build_parser())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; what a user can mend is one line on stderr and status 1."""
    arguments = build_parser().parse_args(argv)
    return exit_status(
        lambda: COMMANDS[arguments.subcommand].run(arguments[arguments.subcommand]),
        "stopped; what is finished is kept: the same command goes on from there",
    )
