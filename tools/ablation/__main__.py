"""`python -m tools.ablation --cache CACHE --codec CODEC --out FOLDER`: which structure predicts best."""

import json
import os
import sys
from pathlib import Path

# As in worldmodel.cli: read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tools.ablation.settings import AblationSettings
from tools.exit_status import exit_status
from worldmodel.config import parse

PROG = "python -m tools.ablation"
NOTE = """Candidates are trained one after another; an ablation that was stopped goes on with the same command. Several
commands with other names may share a folder."""


def main(argv: list[str] | None = None) -> int:
    """Runs an ablation; what a user can mend is one line on stderr and status 1."""
    return exit_status(
        lambda: run_ablation(parse(AblationSettings, sys.argv[1:] if argv is None else argv, PROG, NOTE)),
        "stopped; what is finished is kept: the same command goes on from there",
    )


def run_ablation(settings: AblationSettings) -> None:
    """Train and measure the candidates, then show all that are measured.

    Raises:
        UserError: a setting is wrong, or the cache or its videos cannot be used.
    """
    from tools.ablation.candidates import CANDIDATES, build
    from tools.ablation.speed import speed_table
    from tools.ablation.stages import MEASURES, open_codec, quantizer_of, run_candidate, some_batch
    from tools.ablation.table import draw, table

    codec = open_codec(settings)
    names = settings.names or list(CANDIDATES)
    # What cannot be built is said before anything is trained.
    built = {name: build(name, settings.model, quantizer_of(codec), settings.training.seed) for name in names}
    if settings.speed:
        print("\n".join(speed_table(built, some_batch(settings), settings.context_frames)))
        return
    for name in names:
        run_candidate(name, settings, codec)
    files = {name: Path(settings.out) / name / MEASURES for name in CANDIDATES}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.is_file()}
    picture = Path(settings.out) / "ablation.png"
    draw(found, picture)
    print("\n".join(["", *table(found), "", f"all measures: {settings.out}/NAME/{MEASURES}; {picture}"]))


if __name__ == "__main__":
    sys.exit(main())
