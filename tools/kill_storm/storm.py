"""The undisturbed run, and the one that is killed again and again."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tools.kill_storm.job import Job
from tools.kill_storm.notes import Notes
from tools.kill_storm.plan import Kill
from tools.kill_storm.settings import KillStormSettings
from worldmodel.errors import UserError
from worldmodel.training import checkpoint

POLL_SECONDS = 0.003


class StormError(UserError):
    """The storm cannot go on."""


@dataclass(frozen=True)
class Usual:
    """How long the moments of an undisturbed run take, in seconds."""

    start: float
    save: float
    end: float


@dataclass(frozen=True)
class Outcome:
    """What became of a kill.

    Attributes:
        kill: as planned.
        start: which start of the job it hit.
        at: when, by `time.time`.
        step: the furthest step begun by then.
        saved: step of the newest whole checkpoint by then.
        went_on: whether the job trained on without a new start.
        gone_seconds: until its last process was gone; 0 where it trained on.
        seconds: until the next step began; of a run that had none left, until it ended.
        repeated: steps that were done again.
    """

    kill: Kill
    start: int
    at: float
    step: int
    saved: int
    went_on: bool
    gone_seconds: float = 0.0
    seconds: float = 0.0
    repeated: int = 0


class Storm:
    """A run under torchrun, which is started as slurm/train.sbatch starts it: resumed once it has a checkpoint.

    Attributes:
        faults: what should not be, in words.
        num_missed: kills that were planned and not sent: the time was over, or the run was.
    """

    def __init__(self, out: Path, config: Path, settings: KillStormSettings) -> None:
        """Nothing runs yet."""
        self.out, self.config, self.settings = out, config, settings
        self.run, self.notes = out / "run", Notes(out / "notes.jsonl")
        self.num_starts, self.num_missed, self.faults = 0, 0, list[str]()
        out.mkdir(parents=True)

    def start(self) -> Job:
        """Starts the job, or starts it again."""
        self.num_starts += 1
        arguments = ["train", "--config", str(self.config), "--run", str(self.run)]
        if checkpoint.newest(self.run, tell=False) is not None:
            arguments = ["train", "--resume", str(self.run)]
        return Job(self.num_starts, arguments, self.settings.processes, self.out)

    @contextmanager
    def started(self) -> Iterator[Job]:
        """A job of which nothing is left afterwards, also where the storm breaks off."""
        job = self.start()
        try:
            yield job
        finally:
            job.end()

    def wait(self, condition: Callable[[], bool], what: str, poll_seconds: float = POLL_SECONDS) -> None:
        """Waits for something, and reads notes meanwhile.

        Raises:
            StormError: it does not come.
        """
        stop = time.monotonic() + self.settings.patience_seconds
        while True:
            self.notes.more()
            if condition():
                return
            if time.monotonic() > stop:
                raise StormError(
                    f"{what} did not come in {self.settings.patience_seconds:g} s: see {self.out / 'log.txt'}"
                )
            time.sleep(poll_seconds)

    def undisturbed(self) -> Usual:
        """Runs to the end, and measures how long its moments take.

        Raises:
            StormError: it fails.
        """
        with self.started() as job:
            self.wait(lambda: job.ended, "the end of the undisturbed run")
            ended = time.time()
        if job.status != 0:
            raise StormError(f"the undisturbed run ends with status {job.status}: see {self.out / 'log.txt'}")
        first = min(line["at"] for line in self.notes.of("batch"))
        begins = [line["at"] for line in self.notes.of("saving") if line["rank"] == 0]
        ends = [line["at"] for line in self.notes.of("saved") if line["rank"] == 0]
        saves = [end - begin for begin, end in zip(begins, ends, strict=True)]
        closing = min(line["at"] for line in self.notes.of("end"))
        return Usual(first - job.started, sum(saves) / len(saves), ended - closing)

    def rage(self, plan: list[Kill], usual: Usual, tell: Callable[[Outcome], None]) -> list[Outcome]:
        """Kills as planned, starts again after each until the run has ended, and looks at the disk in between."""
        outcomes: list[Outcome] = []
        waiting, finished, begun = list(plan), False, time.monotonic()
        while waiting or not finished:
            if finished:  # a run that is over has a start and an end, and nothing in between
                waiting = self.without(waiting, [kill for kill in waiting if kill.moment in ("start", "end")])
            with self.started() as job:
                while waiting and not job.ended:
                    if 0 < self.settings.limit_seconds < time.monotonic() - begun:
                        waiting = self.without(waiting, [kill for kill in waiting if kill.moment == "end"][:2])
                        begun = math.inf
                        continue
                    kill = self.next_of(waiting, under_way=any(self.notes.of("batch", job.started)))
                    self.await_moment(job, kill, usual)
                    hit = self.hit(job, kill)
                    if hit is None:  # it has just gone: it is hit in its next start, and sooner
                        waiting = [
                            replace(each, share=each.share / 2) if each.number == kill.number else each
                            for each in waiting
                        ]
                        continue
                    waiting = [each for each in waiting if each.number != kill.number]
                    outcomes.append(hit)
                    tell(hit)
                self.wait(lambda: job.ended, "the end of the job")
            finished = job.status == 0
            self.look_at_disk(f"after start {self.num_starts}")
        return self.measured(outcomes, time.time())

    def without(self, waiting: list[Kill], kept: list[Kill]) -> list[Kill]:
        """Those kept; the others are counted as missed."""
        self.num_missed += len(waiting) - len(kept)
        return kept

    def next_of(self, waiting: list[Kill], under_way: bool) -> Kill:
        """The next kill that can still come: a job that is under way has its start behind it."""
        fitting = [kill for kill in waiting if not (under_way and kill.moment == "start")]
        if fitting and not (fitting[0].moment == "end" and fitting[0] is not waiting[0]):
            return fitting[0]
        return replace(waiting[0], moment="step") if under_way and waiting[0].moment == "start" else waiting[0]

    def await_moment(self, job: Job, kill: Kill, usual: Usual) -> None:
        """Returns when the kill is to come, or there is no job left."""
        begun = self.notes.last_step
        since = time.time() if any(self.notes.of("batch", job.started)) else job.started
        notes, rank = self.notes, kill.rank

        def noted(what: str) -> bool:
            return any(line["rank"] == rank for line in notes.of(what, since))

        def stepped() -> bool:
            return any(line["step"] >= begun + kill.offset for line in notes.of("batch", since))

        def starting() -> bool:
            # A rank comes after torchrun's own start, and its worker last of all.
            due = job.started + (0.0 if kill.target == "worker" else kill.share * usual.start)
            return time.time() > due and job.find(kill.target, rank) is not None

        reached = {
            "start": starting,
            "step": stepped,
            "save": lambda: noted("saving"),
            "end": lambda: noted("end"),
        }[kill.moment]
        usually = {"start": 1.0, "step": 0.02, "save": usual.save, "end": usual.end}[kill.moment]
        poll_seconds = 0.1 if kill.moment == "start" else POLL_SECONDS  # to look for processes costs more than to read
        what = f"the moment of kill {kill.number} ({kill.moment})"
        self.wait(lambda: job.status is not None or reached(), what, poll_seconds)
        time.sleep(kill.share * usually)

    def hit(self, job: Job, kill: Kill) -> Outcome | None:
        """Kills, and waits until training goes on or the job has ended; None where there was nobody to kill."""
        newest = checkpoint.newest(self.run, tell=False)
        self.notes.more()
        step, at = self.notes.last_step, time.time()
        if not job.kill(kill.target, kill.rank, kill.signal):
            return None
        saved = 0 if newest is None else int(newest.name.removeprefix("step_"))
        outcome = Outcome(kill, self.num_starts, at, step, saved, went_on=False)
        if kill.target == "worker":

            def went_on() -> bool:
                here = (line for line in self.notes.of("batch", at) if line["start"] == self.num_starts)
                return any(line["rank"] == kill.rank and line["step"] > step for line in here)

            self.wait(lambda: job.ended or went_on(), "a step after a worker was killed")
            outcome = replace(outcome, went_on=went_on())
        if not outcome.went_on:
            self.wait(lambda: job.ended, f"the end of the job after kill {kill.number}")
            outcome = replace(outcome, gone_seconds=time.time() - at)
        return outcome

    def look_at_disk(self, when: str) -> None:
        """After a kill every checkpoint is whole, `latest` names one, and what is unfinished is told from them."""
        folder = self.run / checkpoint.FOLDER
        if not folder.is_dir():
            return
        known = {checkpoint.LATEST, f".{checkpoint.LATEST}.partial"}
        for path in sorted(folder.iterdir()):
            if path.name.startswith("step_"):
                damage = checkpoint.damage_of(path, None)
                self.faults += [f"{when}: {damage}"] if damage else []
            elif path.name not in known and not path.name.startswith(".step_"):
                self.faults.append(f"{when}: {path} is there")
        unfinished = [path.name for path in folder.glob(".step_*")]
        if len(unfinished) > 2:  # one that was being deleted, one that was being written
            self.faults.append(f"{when}: {', '.join(unfinished)} are left over")
        pointer = folder / checkpoint.LATEST
        if pointer.exists() and not (folder / pointer.read_text(encoding="utf-8").strip()).is_dir():
            self.faults.append(
                f"{when}: latest names {pointer.read_text(encoding='utf-8').strip()}, which is not there"
            )

    def measured(self, outcomes: list[Outcome], ended: float) -> list[Outcome]:
        """The outcomes with what only later notes tell: when training went on, and what was done again."""
        found = []
        for outcome in outcomes:
            later = [
                line
                for line in self.notes.of("batch", outcome.at)
                if (line["step"] > outcome.step if outcome.went_on else line["start"] > outcome.start)
            ]
            seconds = (min(line["at"] for line in later) if later else ended) - outcome.at
            first = min((line["step"] for line in later if line["start"] == later[0]["start"]), default=0)
            repeated = max(outcome.step + 1 - first, 0) if later and not outcome.went_on else 0
            found.append(replace(outcome, seconds=seconds, repeated=repeated))
        return found
