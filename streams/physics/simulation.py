"""Motion of discs in a box: gravity, drag, impacts with the walls and with one another."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from streams.settings import PhysicsSettings

# At the highest speeds of the default world a disc moves a quarter of a pixel in one substep.
SUBSTEPS_PER_SECOND = 480
# Slower contacts (as a share of the speed after a fall over the box's height) neither bounce nor ring: discs rest.
REST_SPEED = 0.05


@dataclass(frozen=True)
class Motion:
    """What happened in one video.

    Attributes:
        states: x, y in pixels (pixel centres at +0.5) and their velocities in pixels per second, at every frame and
            one frame after the last.
        radii: in pixels.
        impacts: seconds, disc, speed normal to the contact in pixels per second; discs that hit each other have one
            row each.
        fall_speed: speed after a fall from rest over the box's height, in pixels per second.
    """

    states: Float64[np.ndarray, "frame_plus_1 disc 4"]
    radii: Float64[np.ndarray, " disc"]
    impacts: Float64[np.ndarray, "impact 3"]
    fall_speed: float


@dataclass(slots=True)
class Disc:
    """State of one disc while the world runs."""

    number: int
    radius: float
    x: float
    y: float
    vx: float
    vy: float


@dataclass(frozen=True)
class World:
    """Constants of one video."""

    height: float
    width: float
    gravity: float
    drag_hz: float
    restitution: float
    pair_restitution: float
    rest_speed: float


def simulate(settings: PhysicsSettings, generator: np.random.Generator) -> Motion:
    """Draws a world in mid-motion and runs it for the length of a video."""
    fall_speed = 2.0 * settings.height / settings.fall_seconds
    world = World(
        height=float(settings.height),
        width=float(settings.width),
        gravity=fall_speed / settings.fall_seconds,
        drag_hz=settings.drag_hz,
        restitution=generator.uniform(settings.min_restitution, settings.max_restitution),
        pair_restitution=settings.pair_restitution,
        rest_speed=REST_SPEED * fall_speed,
    )
    discs = place_discs(settings, fall_speed, generator)
    radii = np.array([disc.radius for disc in discs])
    states, impacts = run(world, discs, settings.num_frames, settings.frames_per_second)
    return Motion(states, radii, np.array(impacts, dtype=np.float64).reshape(-1, 3), fall_speed)


def place_discs(settings: PhysicsSettings, fall_speed: float, generator: np.random.Generator) -> list[Disc]:
    """Draws discs that do not overlap, with random velocities.

    Raises:
        ValueError: the discs do not fit into the box.
    """
    num_discs = int(generator.integers(settings.min_discs, settings.max_discs + 1))
    radii = generator.uniform(settings.min_radius, settings.max_radius, num_discs) * settings.height
    low = radii[:, None]
    high = np.array([settings.width, settings.height]) - low
    if not (low < high).all():
        raise ValueError(f"discs of radius {radii.max():.1f} pixels do not fit into {settings.height}x{settings.width}")
    gaps = radii[:, None] + radii[None, :] + 0.02 * settings.height
    np.fill_diagonal(gaps, 0.0)
    for _ in range(10_000):
        places = generator.uniform(low, high)
        if (np.linalg.norm(places[:, None] - places[None], axis=-1) >= gaps).all():
            speeds = generator.uniform(-1.0, 1.0, (num_discs, 2)) * settings.start_speed * fall_speed
            rows = np.concatenate([radii[:, None], places, speeds], axis=1).tolist()
            return [Disc(number, *row) for number, row in enumerate(rows)]
    raise ValueError(
        f"found no place for {num_discs} discs in {settings.height}x{settings.width}; ask for fewer or smaller"
    )


def run(
    world: World, discs: list[Disc], num_frames: int, frames_per_second: float
) -> tuple[Float64[np.ndarray, "frame_plus_1 disc 4"], list[tuple[float, int, float]]]:
    """Integrates with small fixed substeps; plain floats, since arrays of so few discs are several times slower."""
    substeps = max(1, round(SUBSTEPS_PER_SECOND / frames_per_second))
    step_seconds = 1.0 / (frames_per_second * substeps)
    states = np.empty((num_frames + 1, len(discs), 4))
    impacts: list[tuple[float, int, float]] = []
    for frame in range(num_frames + 1):
        states[frame] = [(disc.x, disc.y, disc.vx, disc.vy) for disc in discs]
        for substep in range(substeps):
            seconds = (frame * substeps + substep + 1) * step_seconds
            for number, speed in advance(world, discs, step_seconds):
                impacts.append((seconds, number, speed))
    last = num_frames / frames_per_second
    return states, [impact for impact in impacts if impact[0] < last]


def advance(world: World, discs: list[Disc], step_seconds: float) -> list[tuple[int, float]]:
    """Moves all discs by one substep in place; returns disc and normal speed of every impact."""
    impacts: list[tuple[int, float]] = []
    keep = 1.0 - world.drag_hz * step_seconds
    for disc in discs:
        disc.vy = (disc.vy + world.gravity * step_seconds) * keep
        disc.vx *= keep
        disc.x += disc.vx * step_seconds
        disc.y += disc.vy * step_seconds
    for first, disc in enumerate(discs):
        for other in discs[first + 1 :]:
            collide(world, disc, other, impacts)
    for disc in discs:
        disc.x, disc.vx, speed_x = bounce(disc.x, disc.vx, disc.radius, world.width - disc.radius, world)
        disc.y, disc.vy, speed_y = bounce(disc.y, disc.vy, disc.radius, world.height - disc.radius, world)
        impacts.extend((disc.number, speed) for speed in (speed_x, speed_y) if speed > world.rest_speed)
    return impacts


def bounce(place: float, speed: float, low: float, high: float, world: World) -> tuple[float, float, float]:
    """Reflects one coordinate at the walls; returns place, velocity and the speed of the impact (0 without one)."""
    if low <= place <= high:
        return place, speed, 0.0
    place = min(max(place, low), high)
    outward = -speed if place == low else speed
    if outward <= 0:
        return place, speed, 0.0
    back = world.restitution * outward if outward > world.rest_speed else 0.0
    return place, back if place == low else -back, outward


def collide(world: World, disc: Disc, other: Disc, impacts: list[tuple[int, float]]) -> None:
    """Lets two discs that touch exchange momentum along the line between them (mass goes with the area)."""
    dx, dy = other.x - disc.x, other.y - disc.y
    reach = disc.radius + other.radius
    squared = dx * dx + dy * dy
    if squared >= reach * reach or squared == 0.0:
        return
    distance = squared**0.5
    dx, dy = dx / distance, dy / distance
    mass, other_mass = disc.radius**2, other.radius**2
    share = other_mass / (mass + other_mass)
    overlap = reach - distance
    disc.x, disc.y = disc.x - dx * overlap * share, disc.y - dy * overlap * share
    other.x, other.y = other.x + dx * overlap * (1 - share), other.y + dy * overlap * (1 - share)
    closing = (disc.vx - other.vx) * dx + (disc.vy - other.vy) * dy
    if closing <= 0:
        return
    rings = closing > world.rest_speed
    impulse = (1.0 + (world.pair_restitution if rings else 0.0)) * closing
    disc.vx, disc.vy = disc.vx - impulse * share * dx, disc.vy - impulse * share * dy
    other.vx, other.vy = other.vx + impulse * (1 - share) * dx, other.vy + impulse * (1 - share) * dy
    if rings:
        impacts.extend(((disc.number, closing), (other.number, closing)))
