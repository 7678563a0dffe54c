"""Whether a run that was killed is, in the end, the run that was not."""

from pathlib import Path

from tools.kill_storm.notes import differences
from tools.kill_storm.storm import Storm
from worldmodel.training import checkpoint
from worldmodel.training.report import FOLDER, read_scalars


def faults_of(storm: Storm, calm: Storm) -> list[str]:
    """All that is wrong, in words: what the disk showed in between, the samples, the losses, the curves, the end."""
    found = list(storm.faults)
    found += differences(storm.notes, calm.notes, storm.settings.processes)
    found += different_ends(storm.run, calm.run)
    found += different_curves(storm.run, calm.run)
    return found + leftovers(storm.run, calm.run)


def different_ends(run: Path, calm: Path) -> list[str]:
    """Files of the last checkpoint that differ: weights, the optimizer's state and the random states of all ranks."""
    folders = [checkpoint.newest(each, tell=False, read_through=None) for each in (run, calm)]
    if folders[0] is None or folders[1] is None or folders[0].name != folders[1].name:
        return [f"the last whole checkpoints are {folders[0]} and {folders[1]}"]
    here, there = (checkpoint.read(folder) for folder in folders if folder is not None)
    found = [
        f"{name} of {folders[0].name} differs"
        for name in there["files"]
        if here["files"].get(name) != there["files"][name]
    ]
    names = ("step", "position", "num_skipped", "recent", "num_updates")
    return found + [f"{name} is {here[name]}, not {there[name]}" for name in names if here[name] != there[name]]


def different_curves(run: Path, calm: Path) -> list[str]:
    """Whether the loss that TensorBoard shows has every step once, at the height of the undisturbed one."""
    here, there = (read_scalars(each, "loss") for each in (run, calm))
    if here == there:
        return []
    return [f"the curve of the loss differs in {len(set(here) ^ set(there))} points of {len(there)}"]


def leftovers(run: Path, calm: Path) -> list[str]:
    """What the undisturbed run's folder has not, but for TensorBoard's files, of which every start writes its own."""
    here, there = ({str(path.relative_to(each)) for path in each.rglob("*")} for each in (run, calm))
    return [f"{name} is left over" for name in sorted(here - there) if Path(name).parts[0] != FOLDER]
