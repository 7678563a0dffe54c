"""Benchmarks, ours against its peers in one run.

`streams` reads videos, `latents` reads latent caches; `train` and `rollout` run an untrained world model on one core,
`device` several on a GPU; `sizes` trains small and large ones with the same learning rates.
"""

import dataclasses
import sys
from importlib import import_module

from jsonargparse import ArgumentParser

from tools.bench.settings import (
    DeviceBenchSettings,
    LatentsSettings,
    RolloutBenchSettings,
    SizesSettings,
    StreamsSettings,
    TrainBenchSettings,
)
from tools.exit_status import exit_status

FLAGS = {
    "quick": "one short file of 256 rows, two rounds: shows in a minute that all works, and measures nothing well",
    "long": "measure the memory of a worker after 20,000 and 200,000 clips too",
}
MODEL_BENCHES = {
    "train": (TrainBenchSettings, "Speed of training, against the same model with one masked attention call."),
    "rollout": (RolloutBenchSettings, "Speed of rollouts, against uncached ones and a decode code by code."),
    "device": (DeviceBenchSettings, "Training and rollouts of models of several sizes on one GPU, against its peaks."),
    "sizes": (SizesSettings, "Whether one learning rate is good for all sizes, and how far layers move at each width."),
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
    latents = ArgumentParser(description="Speed of reading latent caches, side by side with a plain numpy memmap.")
    latents.add_class_arguments(LatentsSettings, skip={"quick"})
    latents.add_argument("--quick", action="store_true", help="few clips, two rounds: shows that all works")
    commands.add_subcommand("latents", latents)
    for name, (settings_class, description) in MODEL_BENCHES.items():
        bench = ArgumentParser(description=description)
        bench.add_class_arguments(settings_class, skip={"quick"})
        bench.add_argument("--quick", action="store_true", help="few codes, two rounds: shows that all works")
        commands.add_subcommand(name, bench)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a benchmark; what a user can mend is one line on stderr and status 1."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    chosen = vars(parsed[parsed.subcommand])
    settings_class = {
        "streams": StreamsSettings,
        "latents": LatentsSettings,
        **{name: settings_class for name, (settings_class, _) in MODEL_BENCHES.items()},
    }[parsed.subcommand]
    settings = settings_class(**{field.name: chosen[field.name] for field in dataclasses.fields(settings_class)})
    run = import_module(f"tools.bench.{parsed.subcommand}").run
    return exit_status(lambda: run(settings))


if __name__ == "__main__":
    sys.exit(main())
