"""The command `worldmodel`: demo, tokenizer, train, rollout, evaluate, watch, doctor."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

# Idle OpenMP threads must not spin: two of them on a busy machine of two cores make torch several times slower.
# Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from worldmodel.errors import CheckpointError, LostProcessError, SettingsError, UserError
from worldmodel.training import cluster, signals

SettingsT = TypeVar("SettingsT")

SHORT = {f"--{name}": f"--sampling.{name}" for name in ("temperature", "top_k", "top_p", "moved_scales")}
SHORT["--continue"] = "--continue_from"
SHORT_NOTE = f"Short names: {', '.join(SHORT)}; RUN may be given without --run, as the first argument."
WATCH_NOTE = "RUN and ADDRESS may be given without --run and --address, as the first arguments. Ctrl-C ends it."
CODEC_NOTE = "RUNs may be given without --runs, first. A world model whose folder is called codec: evaluate ./codec"
EVALUATE_NOTE = f"{SHORT_NOTE} Exit status: 0 when every required line of the table is passed, 3 when not."

DOCTOR_NOTE = (
    "Without a launcher it checks one machine; on several: srun --nodes=2 --ntasks-per-node=8 worldmodel doctor "
    "--folder SHARED. Exit status: 0 without a FAIL, else 1."
)

USAGE = """usage: worldmodel COMMAND [options]

A world model of your own videos: what happens next, with sound.

commands:
  demo        the whole path on a small physics world, in about 15 minutes on two cores (--quick: in 2)
  tokenizer   train a codec (of pictures or of sound) from a folder of videos, or write one without training
  train       train the world model from a latent cache, or straight from videos
  rollout     imagine how a video goes on; writes a video with sound, a film strip and the codes
  evaluate    measure a trained run on the videos held out of its training
              (evaluate codec RUN ...: codecs, beside JPEG and H.264)
  watch       let a trained run watch a camera, a pipe or a network stream, and say what surprises it
  doctor      check machines, network and folder before a training, in all its processes (srun, torchrun)

The latent cache and the videos have tools of their own: python -m tools.latents --help, python -m tools.videos --help

`worldmodel COMMAND --help` lists the options of a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors a user can cause are one line and exit status 2, a signal's end is status 75.

    The loss of another process of the run is status 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "demo": demo,
        "tokenizer": tokenizer,
        "train": train,
        "rollout": rollout,
        "evaluate": evaluate,
        "watch": watch,
        "doctor": doctor,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] not in commands:
        print(f"error: unknown command {arguments[0]!r}: choose from {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](arguments[1:])
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        # A lost process is no mistake of the command line: the scheduler is to start the job again.
        return 1 if isinstance(error, LostProcessError) else 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run() -> NoReturn:
    """The program: `main` with the process's arguments, and its end."""
    cluster.leave(main())


def tokenizer(arguments: list[str]) -> int:
    """Make one codec."""
    from worldmodel.settings import TokenizerSettings

    stop = signals.install()
    settings, resume = _settings_of_run(TokenizerSettings, arguments, "worldmodel tokenizer")
    if settings.family == "dct":
        from worldmodel.untrained import write_codec

        write_codec(settings, resume)
        return 0
    from worldmodel.commands import train_codec

    return _end(train_codec(settings, resume, stop), "worldmodel tokenizer", settings.run)


def train(arguments: list[str]) -> int:
    """Train the world model."""
    from worldmodel.settings import TrainSettings

    stop = signals.install()
    settings, resume = _settings_of_run(TrainSettings, _flag(arguments, "--dry_run"), "worldmodel train")
    if settings.dry_run:
        from worldmodel.dry_run import dry_run

        lines = dry_run(settings)
        if cluster.is_main():
            print("\n".join(lines))
        return 0
    from worldmodel.commands import train_world

    status = _end(train_world(settings, resume, stop), "worldmodel train", settings.run)
    if status == 0 and cluster.is_main():
        print(f"world model trained in {settings.run}; next: worldmodel evaluate {settings.run}")
    return status


def rollout(arguments: list[str]) -> int:
    """Imagine how a video goes on."""
    # A job that is told to end keeps what it has imagined, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from worldmodel.config import parse
    from worldmodel.settings import RolloutSettings

    settings = parse(RolloutSettings, _short(_positional(arguments, "run")), "worldmodel rollout RUN", SHORT_NOTE)
    from worldmodel.rollouts.checking import PIPE
    from worldmodel.rollouts.imagination import imagine

    print("\n".join(imagine(settings)), file=sys.stderr if settings.out == PIPE else sys.stdout)
    return 0


def evaluate(arguments: list[str]) -> int:
    """Measure a run on held-out videos; `evaluate codec` measures codecs."""
    if arguments[:1] == ["codec"]:
        return evaluate_codec(arguments[1:])
    from worldmodel.config import parse
    from worldmodel.settings import EvaluateSettings

    settings = parse(EvaluateSettings, _short(_positional(arguments, "run")), "worldmodel evaluate RUN", EVALUATE_NOTE)
    from worldmodel.evaluation.world import evaluate_run

    return 0 if evaluate_run(settings) else 3


def evaluate_codec(arguments: list[str]) -> int:
    """Measure codecs on held-out videos."""
    from worldmodel.config import parse
    from worldmodel.settings import EvaluateCodecSettings

    runs = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    named = ["--runs", *runs, *arguments[len(runs) :]] if runs else arguments
    settings = parse(EvaluateCodecSettings, named, "worldmodel evaluate codec RUN [RUN ...]", CODEC_NOTE)
    from worldmodel.evaluation.codec import evaluate_codecs

    print("\n".join(evaluate_codecs(settings)))
    return 0


def watch(arguments: list[str]) -> int:
    """Watch a live source with a run."""
    from worldmodel.config import parse
    from worldmodel.settings import WatchSettings

    settings = parse(
        WatchSettings, _positional(arguments, "run", "address"), "worldmodel watch RUN ADDRESS", WATCH_NOTE
    )
    from worldmodel.evaluation.watching import watch_run

    print("\n".join(watch_run(settings)))
    return 0


def doctor(arguments: list[str]) -> int:
    """Check the machines of a training."""
    from worldmodel.config import parse
    from worldmodel.settings import DoctorSettings

    settings = parse(DoctorSettings, arguments, "worldmodel doctor", DOCTOR_NOTE)
    from worldmodel.doctor.examination import examine

    return 0 if examine(settings) else 1


def demo(arguments: list[str]) -> int:
    """The whole path on the physics world."""
    from worldmodel.config import parse
    from worldmodel.settings import DemoSettings

    settings = parse(DemoSettings, _flag(arguments, "--quick"), "worldmodel demo")
    from worldmodel.demo import run_demo

    return run_demo(settings)


def _one_line(error: UserError) -> str:
    """The message; one that comes from a worker process has that process's traceback before it."""
    text = str(error).strip()
    if "Original Traceback" not in text:
        return text
    return text.splitlines()[-1].partition(": ")[2]


def _settings_of_run(settings_class: type[SettingsT], arguments: list[str], prog: str) -> tuple[SettingsT, bool]:
    """Settings from the arguments, or, with `--resume RUN`, the run's own with the arguments on top."""
    from worldmodel.config import parse

    if "--resume" not in arguments:
        return parse(settings_class, arguments, f"{prog} [--resume RUN]"), False
    at = arguments.index("--resume")
    if at + 1 >= len(arguments):
        raise SettingsError("--resume needs the folder of a run: --resume RUN")
    run = Path(arguments[at + 1])
    stored = run / "settings.yaml"
    if not stored.is_file():
        raise CheckpointError(f"{run} is not a run (settings.yaml is missing): there is nothing to resume")
    rest = arguments[:at] + arguments[at + 2 :]
    return parse(settings_class, ["--config", str(stored), "--run", str(run), *rest], prog), True


def _positional(arguments: list[str], *keys: str) -> list[str]:
    """Let the first bare arguments stand for `--key`s; `-`, a pipe's address, is one."""
    if keys and arguments and (arguments[0] == "-" or not arguments[0].startswith("-")):
        return [f"--{keys[0]}={arguments[0]}", *_positional(arguments[1:], *keys[1:])]
    return arguments


def _short(arguments: list[str]) -> list[str]:
    """Short names of options: --temperature for --sampling.temperature, --continue for --continue_from."""
    parts = (argument.partition("=") for argument in arguments)
    return [SHORT.get(name, name) + equals + value for name, equals, value in parts]


def _flag(arguments: list[str], name: str) -> list[str]:
    """Let a bare `--name` (or `--na-me`) stand for `--name true`."""
    joined = []
    for argument, after in itertools.pairwise([*arguments, ""]):
        found = name if argument == name.replace("_", "-") else argument
        joined.append(f"{name}=true" if found == name and after not in ("true", "false") else found)
    return joined


def _end(result: object, command: str, run: str) -> int:
    interrupted = bool(getattr(result, "interrupted", False))
    if interrupted:
        print(f"stopped by a signal, everything is saved; go on with: {command} --resume {run}", file=sys.stderr)
    return signals.EXIT_INTERRUPTED if interrupted else 0


if __name__ == "__main__":
    run()
