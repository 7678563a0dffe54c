"""Rules of the whole tree, checked on the syntax of every file.

Which way imports point, one door for each heavy library, a mirrored test for every module, and sizes.
"""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("streams", "worldmodel", "tools")
FILES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# Low to high; the longest name that fits a module gives its rank. An import points to a lower rank, or to the same rank
# in the same folder.
RANKS = (
    ("streams.closing", "streams.errors", "streams.settings"),
    ("streams.addresses", "streams.journal", "streams.clip", "streams.geometry", "streams.index", "streams.manifest"),
    ("streams.pyav",),
    ("streams",),
    ("streams.physics",),
    ("worldmodel", "worldmodel.errors", "worldmodel.settings"),
    ("worldmodel.evaluation.metrics", "worldmodel.evaluation.pictures", "worldmodel.evaluation.plots"),
    (
        "worldmodel.config",
        "worldmodel.folders",
        "worldmodel.layout",
        "worldmodel.modules",
        "worldmodel.sight",
        "worldmodel.slots",
        "worldmodel.light_weights",
        "worldmodel.devices",
        "worldmodel.compiler",
        "worldmodel.tensors",
    ),
    ("worldmodel.cut_attention", "worldmodel.frame_group"),
    ("worldmodel.attention",),
    ("worldmodel.blocks",),
    ("worldmodel.codecs", "worldmodel.rollouts.sampling"),
    ("worldmodel.cache", "worldmodel.trunk", "worldmodel.decoder"),
    ("worldmodel.model", "worldmodel.heads"),
    (
        "worldmodel.rollouts.next_frame",
        "worldmodel.rollouts.moment",
        "worldmodel.rollouts.repeated",
        "worldmodel.rollouts.rollout",
        "worldmodel.rollouts.rollout_codes",
    ),
    ("worldmodel.objective",),
    ("worldmodel.training", "worldmodel.evaluation"),
    ("worldmodel.checks",),
    ("worldmodel.run", "worldmodel.data", "worldmodel.doctor"),
    ("worldmodel.rollouts", "worldmodel.evaluation.world"),
    (
        "worldmodel.commands",
        "worldmodel.dry_run",
        "worldmodel.evaluation.codec",
        "worldmodel.evaluation.watching",
        "worldmodel.untrained",
    ),
    ("worldmodel.demo", "worldmodel.cli"),
    ("tools.bench.ffmpeg", "tools.bench.race", "tools.bench.settings", "tools.exit_status"),
    ("tools.bench.footage", "tools.bench.peers"),
    ("tools.bench.tasks", "tools.kill_storm"),
    ("worldmodel.__main__", "tools"),
    ("tools.study", "tools.scaling"),
)

DOORS = {
    "av": "streams/pyav/",
    "decord": "streams/decord.py",
    "torchcodec": "streams/torchcodec.py",
    "torchaudio": "streams/mel.py",
    "kornia": "streams/geometry.py",
    "pyarrow": "streams/manifest.py",
    "zarr": "worldmodel/cache/store.py",
    "xformers": "worldmodel/attention.py",
    "matplotlib": "worldmodel/evaluation/plots.py",
    "constriction": "worldmodel/evaluation/entropy.py",
    "deepspeed": "worldmodel/training/engine.py",
    "tensorboard": "worldmodel/training/report.py",
    "torch.utils.tensorboard": "worldmodel/training/report.py",
}
DOORS_IN_USE = sorted(set(DOORS) - {"tensorboard"})  # TensorBoard's writer is reached through torch
DOORLESS = "tools/bench/peers/"  # measures libraries as they are, without our doors
NOT_MIRRORED = {"__init__", "__main__", "settings", "errors"}  # names of files, or of the folder around them
MAX_FILE_LINES, MAX_MEDIAN_LINES, MAX_FUNCTION_LINES = 500, 150, 60


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, at its top or inside a function; `from a import b` gives a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """The modules of this project that a file imports."""
    found = set()
    for name in imported_names(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]  # noqa: PLW2901 (a.b.c may be the name c in the module a.b)
        if name:
            found.add(name)
    return found


def rank_of(module: str) -> int:
    fitting = [
        (len(name), rank)
        for rank, names in enumerate(RANKS)
        for name in names
        if module == name or (module.startswith(f"{name}.") and name != "worldmodel")
    ]
    assert fitting, f"{module} has no rank: add it to the table in tests/test_architecture.py"
    return max(fitting)[1]


def room_of(module: str) -> Path:
    return MODULES[module].parent


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function, its docstring not counted."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None and isinstance(first, ast.Expr):
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield f"{path}:{node.lineno} {node.name}", lines


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down_or_sideways_within_a_room(module: str):
    wrong = [
        other
        for other in sorted(imported_modules(MODULES[module]) - {module})
        if not (
            rank_of(other) < rank_of(module)
            or (rank_of(other) == rank_of(module) and room_of(other) == room_of(module))
        )
    ]
    assert not wrong, f"{module} imports {wrong}, which stand higher or in another room of the same height"


def test_no_modules_import_each_other_in_a_circle():
    imports = {module: imported_modules(path) - {module} for module, path in MODULES.items()}
    while leaves := {module for module, others in imports.items() if not others & imports.keys()}:
        imports = {module: others for module, others in imports.items() if module not in leaves}
    assert not imports, f"these import each other in a circle: {sorted(imports)}"


@pytest.mark.parametrize("library", DOORS_IN_USE)
def test_a_heavy_library_is_imported_by_its_door_alone(library: str):
    importers = [
        str(path)
        for path in FILES
        if not str(path).startswith(DOORLESS)
        and any(name == library or name.startswith(f"{library}.") for name in imported_names(path))
    ]
    assert importers
    assert all(path == DOORS[library] or path.startswith(f"{DOORS[library].rstrip('/')}/") for path in importers)


@pytest.mark.parametrize("path", [path for path in FILES if not NOT_MIRRORED & {path.stem, path.parent.name}], ids=str)
def test_every_module_has_a_mirrored_test(path: Path):
    mirrored = ROOT / "tests" / path.parent / f"test_{path.name}"
    assert mirrored.is_file(), f"{path} is tested nowhere: write {mirrored.relative_to(ROOT)}"


def test_files_are_short():
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: num for path, num in lines.items() if num > MAX_FILE_LINES}
    assert statistics.median([num for num in lines.values() if num]) <= MAX_MEDIAN_LINES


@pytest.mark.parametrize("path", FILES, ids=str)
def test_functions_are_short(path: Path):
    assert not {name: lines for name, lines in functions_of(path) if lines > MAX_FUNCTION_LINES}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_annotations_stay_objects_so_that_shapes_are_checked(path: Path):
    assert "__future__.annotations" not in set(imported_names(path))


def test_the_sight_of_the_rules_is_not_empty():
    # Guards the tests above against a tree that moved: with no file found, all of them would pass.
    assert {"streams.settings", "worldmodel.settings", "worldmodel.cache.latents"} <= MODULES.keys()
    assert rank_of("streams.settings") < rank_of("worldmodel.cache.latents") < rank_of("tools.latents")
