"""What training sends over links and how far it scales, on paper and counted: `python -m tools.scaling`."""

import sys
from pathlib import Path

from tools.exit_status import exit_status
from tools.scaling.settings import ScalingSettings
from worldmodel.config import parse

PLOTTED = (8, 16, 32, 64, 128, 256, 512, 1024)


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables of docs/scaling.md; what a user can mend is one line on stderr and status 1."""
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda: run(parse(ScalingSettings, given, "python -m tools.scaling")))


def run(settings: ScalingSettings) -> None:
    """Prints all, and measures and draws what is asked for."""
    from tools.scaling import report

    machine, work = settings.machine, settings.work
    lines = [*report.assumptions(machine, work), *report.stage_tables(machine, work), ""]
    lines += [f"Clips of {report.LONG_FRAMES} frames, one in a step for each group of GPUs:", ""]
    lines += [*report.sequence_table(machine, work), ""]
    lines += [f"Clips of {work.frames} frames, one in a step for each group of GPUs that share matrices:", ""]
    lines += [*report.tensor_table(machine, work), "", "The stage of the fastest step that fits, and its efficiency:"]
    print("\n".join([*lines, "", *report.choices(machine, work)]), flush=True)
    if settings.plot:
        from worldmodel.evaluation.plots import plot_efficiencies

        plot_efficiencies(PLOTTED, report.efficiencies(machine, work, PLOTTED), Path(settings.plot))
    if settings.measure:
        from tools.scaling.measured import measure

        print("\n".join(["", *report.measured_table(measure())]))


if __name__ == "__main__":
    sys.exit(main())
