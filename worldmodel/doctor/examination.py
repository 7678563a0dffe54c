"""`worldmodel doctor`: every check, in bounded time, and one table."""

import sys
from collections.abc import Callable
from pathlib import Path

from streams.settings import ClipSettings, LoaderSettings
from worldmodel.doctor.exchange import bandwidth, clocks
from worldmodel.doctor.facts import Facts, collect
from worldmodel.doctor.findings import Finding, table, write_json
from worldmodel.doctor.judging import by_machine, judge_machines
from worldmodel.doctor.meeting import meet
from worldmodel.doctor.shared_folder import examine_folder
from worldmodel.errors import SettingsError
from worldmodel.settings import DoctorSettings
from worldmodel.training import cluster, hanging, peers

IMPORT_SECONDS = 300.0
REMEDY = "see to the machines named and to the network between them, and call the doctor again"


def examine(settings: DoctorSettings) -> bool:
    """Checks everything, prints the table on rank 0, and writes it for machines where asked to; every process calls it.

    Returns:
        Whether nothing failed; the same in every process.

    Raises:
        SettingsError: a limit is not positive, or the launcher's variables are wrong.
        LostProcessError: a process ended in the middle.
    """
    if settings.timeout_seconds <= 0:
        raise SettingsError(f"timeout_seconds={settings.timeout_seconds:g} is out of range: it must be above 0")
    ranks = cluster.find_ranks()
    # Whoever waits for others in the meeting does so in three steps.
    with hanging.unwatched(lambda: [*peers.states(), REMEDY]), peers.missed(REMEDY):
        hanging.alive(IMPORT_SECONDS, "the import of torch")
        import torch.distributed  # noqa: F401 (before times are short: on a busy file system it takes its own)

        hanging.alive(4 * settings.timeout_seconds, "the meeting of all processes")
        meeting = meet(ranks, settings.timeout_seconds)
        findings = [meeting.finding]
        if meeting.complete:
            peers.meet()
            findings += checks(settings)
        failed = any(finding.verdict == "FAIL" for finding in findings)
        if meeting.complete:
            failed = cluster.texts(str(failed))[0] == "True"
    tell(findings, settings, ranks.rank == 0, meeting.complete)
    return not failed


def checks(settings: DoctorSettings) -> list[Finding]:
    """What connected processes find; each check is watched."""

    def watched(what: str, check: Callable[[], list[Finding]]) -> list[Finding]:
        hanging.alive(settings.timeout_seconds, f"the doctor's check of {what}")
        return check()

    facts: list[Facts] = []

    def machines() -> list[Finding]:
        facts.extend(Facts.from_text(text) for text in cluster.texts(collect().to_text()))
        return judge_machines(facts, shm_bytes(settings.clips, settings.loader, len(facts)))

    def together() -> list[Finding]:
        leaders = [group[0] for group in by_machine(facts).values()]
        return [clocks([each.rank for each in leaders], [each.machine for each in leaders])]

    findings = watched("every machine", machines)
    findings += watched("the clocks", together)
    folder = Path(settings.folder)
    findings += watched(f"the folder {folder}", lambda: examine_folder(folder, settings.disk_gibibytes))
    rate = settings.gigabytes_per_second
    findings += watched("the all-reduce", lambda: [bandwidth(rate, 2 * settings.timeout_seconds)])
    hanging.rest()
    return findings


def shm_bytes(clips: ClipSettings, loader: LoaderSettings, num_ranks: int) -> int:
    """What the workers of one process keep ready in /dev/shm, and one batch that is being read."""
    clip = clips.num_frames * (3 * clips.height * clips.width + 4 * clips.samples_per_frame * clips.sound_channels)
    share = -(-loader.batch_size // num_ranks)
    return loader.num_workers * (loader.prefetch_batches + 1) * share * clip


def tell(findings: list[Finding], settings: DoctorSettings, main: bool, complete: bool) -> None:
    """Prints the table; of processes that did not meet, each tells its own."""
    if main or not complete:
        print("\n".join(table(findings)), file=sys.stdout if main else sys.stderr, flush=True)
    if main and settings.json is not None:
        write_json(findings, Path(settings.json))
