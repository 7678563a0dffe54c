"""What the facts of all processes mean: pure functions from facts to findings."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from streams.pyav.decoders import KINDS
from worldmodel.doctor.facts import UNLIMITED, Facts
from worldmodel.doctor.findings import Finding, judge

MIN_OPEN_FILES, ENOUGH_OPEN_FILES = 512, 4096
ENOUGH_LOCKED_BYTES = 64 * 2**20
USED_GPU_SHARE = 0.1
NEEDED_DECODERS = ("h264",)


def judge_machines(facts: Sequence[Facts], shm_needed_bytes: int) -> list[Finding]:
    """Everything that can be told from what every process says of itself.

    Args:
        facts: of all processes, by rank.
        shm_needed_bytes: what the loader of one process keeps in /dev/shm.
    """
    return [
        places(facts),
        same_versions(facts),
        shared_memory(facts, shm_needed_bytes),
        open_files(facts),
        locked_memory(facts),
        gpus(facts),
        decoders(facts),
    ]


def places(facts: Sequence[Facts]) -> Finding:
    """As many processes on each machine as were asked for, with numbers of their own."""
    machines = by_machine(facts)
    counts = Counter(len(group) for group in machines.values())
    wrong = [
        f"{name} has {len(group)} instead of {group[0].expected_local}"
        for name, group in machines.items()
        if group[0].expected_local and len(group) != group[0].expected_local
    ]
    wrong += [
        f"{name} has a local rank twice"
        for name, group in machines.items()
        if len({each.local_rank for each in group}) < len(group)
    ]
    uneven = len(counts) > 1
    if uneven and not wrong:
        wrong = [f"{name} has {len(group)}" for name, group in machines.items()]
    names = [f"{name} {group[0].address}" for name, group in machines.items()]
    value = f"{len(facts)} on {len(machines)} ({', '.join(shortened(names))})"
    return judge(
        "processes on machines",
        bool(wrong),
        "; ".join([value, *shortened(wrong)]),
        "as many on each as asked for",
        "start one process per GPU: srun with --ntasks-per-node, or torchrun with --nproc-per-node",
    )


def same_versions(facts: Sequence[Facts]) -> Finding:
    """The same Python, packages and source everywhere."""
    differing = []
    for name, common in facts[0].versions.items():
        others = {each.machine: each.versions.get(name, "none") for each in facts if each.versions.get(name) != common}
        differing += [f"{name} {common} on {facts[0].machine} but {other} on {on}" for on, other in others.items()]
    value = ", ".join(f"{name} {version}" for name, version in facts[0].versions.items())
    return judge(
        "versions",
        bool(differing),
        "; ".join(shortened(differing)) or value,
        "the same everywhere",
        "use one environment and one checkout on a folder that all machines see",
    )


def shared_memory(facts: Sequence[Facts], needed_bytes: int) -> Finding:
    """/dev/shm holds the batches that the loaders of a machine keep ready."""
    machines = by_machine(facts)
    tightest = min(machines, key=lambda name: room_of(machines[name], needed_bytes))
    group = machines[tightest]
    needed, size, free = needed_bytes * len(group), group[0].shm_bytes, group[0].shm_free_bytes
    return judge(
        "/dev/shm",
        size < needed,
        f"{in_words(size)}, {in_words(free)} free, on {tightest}",
        f"{in_words(needed)} for the loaders of {len(group)} processes",
        "mount -o remount,size=... /dev/shm (containers: --shm-size), or a smaller loader.prefetch_batches",
        warned=free < needed,
    )


def room_of(group: Sequence[Facts], needed_bytes: int) -> tuple[bool, float]:
    """Whether /dev/shm of a machine is large enough for its processes, and what is free of it for each."""
    first, number = group[0], len(group)
    return first.shm_bytes >= needed_bytes * number, first.shm_free_bytes / number


def open_files(facts: Sequence[Facts]) -> Finding:
    """Loaders hand over batches as open files."""
    least = min(facts, key=lambda each: each.open_files)
    return judge(
        "open files",
        least.open_files < MIN_OPEN_FILES,
        f"{least.open_files} on {least.machine}",
        f"{ENOUGH_OPEN_FILES} or more",
        "ulimit -n 65536 before the start (LimitNOFILE of slurmd)",
        warned=least.open_files < ENOUGH_OPEN_FILES,
    )


def locked_memory(facts: Sequence[Facts]) -> Finding:
    """InfiniBand sends from locked memory alone; without it, little has to be locked."""
    limited = [each for each in facts if each.locked_bytes != UNLIMITED]
    least = min(limited, key=lambda each: each.locked_bytes) if limited else facts[0]
    return judge(
        "locked memory",
        any(each.has_infiniband for each in limited),
        f"{in_words(least.locked_bytes)} on {least.machine}" if limited else "unlimited",
        f"{in_words(ENOUGH_LOCKED_BYTES)} or more, with InfiniBand unlimited",
        "ulimit -l unlimited before the start (LimitMEMLOCK=infinity of slurmd)",
        warned=bool(limited) and least.locked_bytes < ENOUGH_LOCKED_BYTES,
    )


def gpus(facts: Sequence[Facts]) -> Finding:
    """The same GPUs everywhere, enough of them, healthy and free."""
    failures, warnings = [each.gpu_trouble for each in facts if each.gpu_trouble], []
    machines = by_machine(facts)
    kinds = {}
    for name, group in machines.items():
        found = {gpu.uuid: gpu for each in group for gpu in each.gpus}
        kinds[name] = ", ".join(f"{num} x {kind}" for kind, num in Counter(g.name for g in found.values()).items())
        if found and len(found) < len(group):
            failures.append(f"{len(group)} processes share {len(found)} on {name}")
        if found and any(each.num_torch_gpus == 0 for each in group):
            failures.append(f"torch cannot use those of {name}")
        for gpu in found.values():
            if gpu.num_ecc_errors:
                failures.append(f"{gpu.num_ecc_errors} ECC errors of {gpu.uuid} on {name}")
            if gpu.throttled:
                warnings.append(f"{gpu.uuid} on {name} is slowed down by heat or power")
            if gpu.used_mebibytes > USED_GPU_SHARE * gpu.memory_mebibytes:
                warnings.append(
                    f"{gpu.used_mebibytes} of {gpu.memory_mebibytes} MiB of {gpu.uuid} on {name} are in use"
                )
    if len(set(kinds.values())) > 1:
        failures.append("they differ: " + "; ".join(f"{kind or 'none'} on {name}" for name, kind in kinds.items()))
    value = kinds[facts[0].machine]
    return judge(
        "GPUs",
        bool(failures),
        "; ".join([f"{value} on each machine" if value else "none, the CPU trains", *shortened(failures + warnings)]),
        "alike, one per process, without errors, free",
        "leave the machines named out (sbatch --exclude), or have their driver, cooling or other jobs looked after",
        warned=bool(warnings),
    )


def decoders(facts: Sequence[Facts]) -> Finding:
    """What videos can be read, on the machine that reads the fewest kinds."""
    least = min(facts, key=lambda each: len(each.decoders))
    missing = [kind for kind in KINDS if kind not in least.decoders]
    return judge(
        "decoders",
        any(kind in missing for kind in NEEDED_DECODERS),
        f"without {', '.join(missing)} on {least.machine}" if missing else ", ".join(least.decoders),
        ", ".join(KINDS) if missing else "all",
        "install PyAV's own wheel (pip install av), which brings them",
        warned=bool(missing),
    )


def by_machine(facts: Sequence[Facts]) -> dict[str, list[Facts]]:
    """The processes of every machine, in the order of their ranks."""
    groups: dict[str, list[Facts]] = defaultdict(list)
    for each in facts:
        groups[each.machine].append(each)
    return dict(groups)


def shortened(names: Sequence[str], most: int = 4) -> list[str]:
    """The first few, and how many more there are."""
    return list(names) if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def in_words(num_bytes: float | int) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"
