"""Where decoded sound belongs on the clock of its container: times that are rounded, that jitter, drift, or jump."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int64

# Sound that comes this much too late or too early is apart from what was before it; less is followed smoothly.
GAP_SECONDS = 0.015
# Times that run away from the samples are followed from one knot to the next, each found from the times around it.
KNOT_SECONDS, AROUND_SECONDS = 0.25, 0.5
# How far ahead of and behind an interval the times matter then.
FOLLOWED_SECONDS = KNOT_SECONDS + AROUND_SECONDS + 0.1


@dataclass(frozen=True)
class Clock:
    """The clock of a sound track, counted in samples since the container's start.

    Attributes:
        hz: samples in a second.
        tick: samples between two times that the container can tell; above 1 they are rounded.
        first: time of the track's first sample.
        first_length: samples of its first frame, which may be cut (priming); all others have one size in most codecs.
        drift: seconds that the times gain on the samples in a second of sound.
    """

    hz: int
    tick: float
    first: float
    first_length: int
    drift: float = 0.0


@dataclass(frozen=True)
class Run:
    """Samples without a gap among them.

    Attributes:
        start: first sample of the run, counted in the sound at hand.
        stop: the sample after its last.
        samples: counts of samples since `start`, increasing.
        places: times of these on the clock; straight lines run between them, and on beyond.
    """

    start: int
    stop: int
    samples: Float64[np.ndarray, " knot"]
    places: Float64[np.ndarray, " knot"]

    @property
    def rigid(self) -> bool:
        """Whether samples are as far apart as the clock says, so that they can be copied."""
        return len(self.places) == 1


def place(
    times: Float64[np.ndarray, " frame"],
    lengths: Int64[np.ndarray, " frame"],
    clock: Clock,
    num_before: int | None = None,
) -> list[Run]:
    """Places consecutive frames of sound by their times.

    Rounded times are undone where the sound has neither gap nor drift: its frames then stand where counting from the
    start of the track puts them, wherever decoding began. Where they follow no such count, the middle of the times is
    taken, so that they are off by half a tick at most.

    Args:
        times: time of each frame.
        lengths: samples of each.
        clock: the track.
        num_before: samples of the track that came before these, if all of them are known.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)])
    late = np.diff(times) - lengths[:-1]
    cuts = [0, *(np.flatnonzero(np.abs(late) > GAP_SECONDS * clock.hz) + 1).tolist(), len(times)]
    runs = []
    for low, high in pairwise(cuts):
        counted = clock.first + num_before if num_before is not None and low == 0 else None
        samples = (starts[low:high] - starts[low]).astype(np.float64)
        knots = knots_of(times[low:high], samples, lengths[low:high], clock, counted)
        runs.append(Run(int(starts[low]), int(starts[high]), *knots))
    return runs


def knots_of(
    times: Float64[np.ndarray, " frame"],
    samples: Float64[np.ndarray, " frame"],
    lengths: Int64[np.ndarray, " frame"],
    clock: Clock,
    counted: float | None,
) -> tuple[Float64[np.ndarray, " knot"], Float64[np.ndarray, " knot"]]:
    """The line from samples to places of one run; see `Run`."""
    shifts = times - samples * (1 + clock.drift)
    spread, middle = shifts.max() - shifts.min(), (shifts.max() + shifts.min()) / 2
    if spread > clock.tick + 1:
        return followed(times, samples, lengths, clock, counted)
    if clock.drift:
        return np.array([0.0, clock.hz]), middle + np.array([0.0, clock.hz * (1 + clock.drift)])
    exact = clock.tick <= 1 and spread < 1e-3
    guesses = [] if exact else guesses_of(middle, samples, lengths, clock, counted)
    near = [guess for guess in guesses if abs(guess - middle) <= clock.tick + 1]
    return np.zeros(1), np.rint([*near, middle][:1])


def guesses_of(
    shift: float,
    samples: Float64[np.ndarray, " frame"],
    lengths: Int64[np.ndarray, " frame"],
    clock: Clock,
    counted: float | None,
) -> list[float]:
    """Where a run would begin by counting samples from the start of the track, if it begins near `shift`."""
    guesses = [] if counted is None else [counted]
    if len(lengths) > 2 and len(set(lengths[1:-1].tolist())) == 1:
        # Frames of one size: this run's second is a whole number of them away from the track's second.
        second, size = clock.first + clock.first_length, int(lengths[1])
        guesses.append(second + round((shift + samples[1] - second) / size) * size - samples[1])
    return guesses


def followed(
    times: Float64[np.ndarray, " frame"],
    samples: Float64[np.ndarray, " frame"],
    lengths: Int64[np.ndarray, " frame"],
    clock: Clock,
    counted: float | None,
) -> tuple[Float64[np.ndarray, " knot"], Float64[np.ndarray, " knot"]]:
    """Knots at fixed times, wherever decoding began; each lies on the line through the times around it.

    Times that only jitter around a count of samples from the start of the track give way to the count.
    """
    step, reach = KNOT_SECONDS * clock.hz, AROUND_SECONDS * clock.hz
    places = np.arange(np.rint(times[0] / step), np.rint(times[-1] / step) + 1) * step
    shifts = []
    for middle in places:
        near = np.abs(times - middle) < reach
        shift, steady, jitter = line_near(times[near] - middle, (times - samples)[near], reach, clock.tick)
        if steady:
            # Times that are always late by up to some amount are late by half of it on average.
            tolerance = 0.7 * jitter + clock.tick + 1
            guesses = guesses_of(shift, samples, lengths, clock, counted)
            shift = next((guess for guess in guesses if abs(guess - shift) <= tolerance), shift)
        shifts.append(shift)
    if np.ptp(shifts) < 1e-3:
        return np.zeros(1), np.rint(shifts[:1])
    return places - np.array(shifts), places


def line_near(
    away: Float64[np.ndarray, " frame"], shifts: Float64[np.ndarray, " frame"], reach: float, tick: float
) -> tuple[float, bool, float]:
    """The straight line through shifts, nearer ones counting more.

    Single frames whose times are far off all others are left out.

    Returns:
        height of the line at 0, whether it may as well be level, and how far the shifts lie apart along it.
    """
    apart = np.abs(shifts - np.median(shifts))
    usual = apart <= 4 * np.median(apart) + tick + 1
    away, shifts = away[usual], shifts[usual]
    weights = np.clip(1 - np.abs(away) / reach, 1e-6, None)
    mean, height = np.average(away, weights=weights), np.average(shifts, weights=weights)
    spread = np.average((away - mean) ** 2, weights=weights)
    slope = np.average((away - mean) * (shifts - height), weights=weights) / spread if spread else 0.0
    rest = shifts - slope * away
    steady = abs(slope) * np.sqrt(spread * len(away)) <= 4 * rest.std() + 1e-2
    return float(height - slope * mean), bool(steady), float(np.ptp(rest))


def render(
    sound: Float32[np.ndarray, "channel sample"], runs: list[Run], start: int, stop: int
) -> Float32[np.ndarray, "channel place"]:
    """Sound at whole places from `start` to `stop`, silent where there is none."""
    rendered = np.zeros((len(sound), stop - start), dtype=np.float32)
    for run in runs:
        part = sound[:, run.start : run.stop]
        if run.rigid:
            first = int(run.places[0]) - start
            low, high = max(first, 0), min(first + part.shape[1], stop - start)
            rendered[:, low : max(low, high)] = part[:, low - first : max(low, high) - first]
        else:
            for low, high, positions in stretched(run, start, stop):
                rendered[:, low - start : high - start] = between(part, positions)
    return rendered


def stretched(run: Run, start: int, stop: int) -> Iterator[tuple[int, int, Float64[np.ndarray, " place"]]]:
    """Whole places that a run covers, and the (broken) number of the sample at each."""
    places, samples = run.places, run.samples
    slope = np.diff(samples) / np.diff(places)
    # The lines at both ends go on.
    far = float(abs(stop - start) + run.stop - run.start) + abs(places).max()
    places = np.concatenate([[places[0] - far], places, [places[-1] + far]])
    samples = np.concatenate([[samples[0] - far * slope[0]], samples, [samples[-1] + far * slope[-1]]])
    positions = np.interp(np.arange(start, stop), places, samples)
    inside = np.flatnonzero((positions > -0.5) & (positions < run.stop - run.start - 0.5))
    if len(inside):
        yield start + int(inside[0]), start + int(inside[-1]) + 1, positions[inside[0] : inside[-1] + 1]


def between(
    sound: Float32[np.ndarray, "channel sample"], positions: Float64[np.ndarray, " place"]
) -> Float32[np.ndarray, "channel place"]:
    """Sound between its samples, on cubic curves through four of them."""
    whole = np.floor(positions).astype(np.int64)
    t = (positions - whole).astype(np.float32)
    before, here, after, later = (sound[:, np.clip(whole + offset, 0, sound.shape[1] - 1)] for offset in (-1, 0, 1, 2))
    return (
        before * (-t * (t - 1) * (t - 2) / 6)
        + here * ((t + 1) * (t - 1) * (t - 2) / 2)
        + after * (-(t + 1) * t * (t - 2) / 2)
        + later * ((t + 1) * t * (t - 1) / 6)
    )
