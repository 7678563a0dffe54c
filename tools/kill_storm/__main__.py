"""`python -m tools.kill_storm`: a training that is killed a hundred times ends as if nothing had been."""

import os
import sys
from pathlib import Path

# As in worldmodel.cli: read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tools.exit_status import exit_status
from tools.kill_storm.settings import KillStormSettings
from worldmodel.config import parse
from worldmodel.errors import SettingsError, UserError

PROG = "python -m tools.kill_storm"
NOTE = """A tiny world model is trained by torchrun, once undisturbed, and once while SIGKILL, SIGTERM and SIGUSR1 hit
its loader's workers, its processes and torchrun: during the start, the steps, the writing of checkpoints and the end.
Exit status 0 where samples, losses, checkpoints and curves are the same to the bit, and nothing is left behind."""

LONGEST_PATH = 107 - len("/storm/tmp/pymp-12345678/listener-12345678")  # of Linux's sockets, and what follows


def main(argv: list[str] | None = None) -> int:
    """Runs a storm; what a user can mend, and a difference, are told on stderr with status 1."""
    arguments = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run_storm(parse(KillStormSettings, arguments, PROG, NOTE)))


def check(settings: KillStormSettings) -> None:
    """Refuses what is no storm.

    Raises:
        SettingsError: names the setting.
    """
    for name in ("kills", "processes", "checkpoint_every"):
        if getattr(settings, name) < 1:
            raise SettingsError(f"{name}={getattr(settings, name)} is out of range: it must be 1 or more")
    if Path(settings.out).exists():
        raise SettingsError(f"out={settings.out} exists already: give a folder that is new")
    # Workers hand tensors over through sockets in TMPDIR; where their names are too long, they wait for ever.
    if len(os.fsencode(Path(settings.out).absolute())) > LONGEST_PATH:
        raise SettingsError(
            f"out={settings.out}: the whole path must not have more than {LONGEST_PATH} characters, "
            "since sockets lie in it: give a shorter one"
        )


def run_storm(settings: KillStormSettings) -> None:
    """Makes a world, trains it twice, and compares.

    Raises:
        UserError: something differs.
    """
    check(settings)
    from tqdm import tqdm

    from tools.kill_storm import table
    from tools.kill_storm.plan import plan_of, steps_needed
    from tools.kill_storm.storm import Outcome, Storm
    from tools.kill_storm.verdict import faults_of
    from tools.kill_storm.world import make_world
    from worldmodel.evaluation.plots import plot_kills

    out, plan = Path(settings.out), plan_of(settings.kills, settings.processes, settings.seed)
    config = make_world(out / "world", settings, steps_needed(plan, settings.checkpoint_every))
    calm, storm = (Storm(out / name, config, settings) for name in ("calm", "storm"))
    usual = calm.undisturbed()
    print(
        f"undisturbed: {calm.notes.last_step} steps; start {usual.start:.1f} s, a save {usual.save:.2f} s, "
        f"end {usual.end:.1f} s",
        flush=True,
    )
    with tqdm(total=len(plan), unit="kill", mininterval=1.0 if sys.stderr.isatty() else 30.0) as bar:

        def tell(outcome: Outcome) -> None:
            bar.update()
            bar.set_postfix_str(f"step {outcome.step}", refresh=False)

        outcomes = storm.rage(plan, usual, tell)
    table.write_csv(outcomes, out / "kills.csv")
    losses = [(line["step"], float.fromhex(line["loss"])) for line in storm.notes.of("batch") if line["rank"] == 0]
    hits = [(each.step, each.kill.target, each.kill.signal) for each in outcomes]
    plot_kills(losses, hits, out / "kills.png")
    print("\n".join(table.aligned([table.HEADER, *map(table.row_of, outcomes)])))
    print("\n".join(["", *table.aligned([table.SUMMARY_HEADER, *table.summary(outcomes)]), ""]))
    left = count(out / "storm" / "tmp")
    print(f"{storm.num_missed} kills were not sent; {left} files are left in TMPDIR, which is the job's")
    faults = faults_of(storm, calm)
    for fault in faults:
        print(f"difference: {fault}", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} differences between the storm and the undisturbed run in {out}")
    print(
        f"{len(outcomes)} kills in {storm.num_starts} starts: samples, losses, curves and the last checkpoint are to "
        f"the bit those of the undisturbed run, and nothing is left behind; {out / 'kills.csv'}, {out / 'kills.png'}"
    )


def count(folder: Path) -> int:
    """Files, sockets and empty folders below a folder: what torchrun and multiprocessing cannot remove when killed."""
    return sum(not path.is_dir() or not any(path.iterdir()) for path in folder.rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
