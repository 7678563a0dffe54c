"""`python -m tools.study NAME --videos VIDEOS --out FOLDER`: world models that differ in a setting or two."""

import itertools
import os
import sys
from pathlib import Path

# As in worldmodel.cli: read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tools.exit_status import exit_status
from tools.study.settings import StudySettings
from worldmodel.config import parse

STUDIES = Path(os.path.relpath(Path(__file__).resolve().parents[2] / "configs" / "studies"))
PROG = "python -m tools.study NAME"
NOTE = f"""NAME is a file in {STUDIES}, or any other FILE.yaml. Every variant has its own picture codec, latent cache
and world model, unless these are equal to another's. A study that was stopped goes on with the same command."""


def main(argv: list[str] | None = None) -> int:
    """Runs a study; what a user can mend is one line on stderr and status 1."""
    return exit_status(
        lambda: run_study(parse(StudySettings, named(sys.argv[1:] if argv is None else argv), PROG, NOTE)),
        "stopped; what is finished is kept: the same command goes on from there",
    )


def named(arguments: list[str]) -> list[str]:
    """Let the first bare argument stand for the file of a study, which may lie in configs/studies."""
    first = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments[:1]))
    files = [name if name.endswith(".yaml") else str(STUDIES / f"{name}.yaml") for name in first]
    return [*(f"--config={file}" for file in files), *arguments[len(first) :]]


def run_study(settings: StudySettings) -> None:
    """Make and measure all variants; study.json is renewed after each, table and plot are of all of them.

    Raises:
        UserError: a setting is wrong, or a stage cannot be done.
    """
    from tools.study.plan import plans_of

    plans = plans_of(settings)
    from tools.study.stages import run_variant, write_json
    from tools.study.table import BITS, psnr_of, table
    from worldmodel.evaluation.plots import plot_tradeoff

    out, variants = Path(settings.out), {}
    for plan in plans:
        variants[plan.name] = run_variant(plan)
        write_json(out / "study.json", {"videos": settings.videos, "variants": variants})
    points = {name: (BITS["the world model"](each), psnr_of(each)) for name, each in variants.items()}
    plot_tradeoff(points, list(settings.compare.values()), out / "study.png")
    print("\n".join(["", *table(variants, settings.compare), "", f"{out / 'study.json'} and {out / 'study.png'}"]))


if __name__ == "__main__":
    sys.exit(main())
