"""How the world looks: colours, backgrounds, anti-aliased discs, and the exact flow of what is drawn."""

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, UInt8

# Rec. 601 weights; a disc differs from the background by at least this much luma (0 to 1) everywhere on average.
LUMA = np.array([0.299, 0.587, 0.114])
MIN_CONTRAST = 0.22


@dataclass(frozen=True)
class Look:
    """Colours of one video, red green blue from 0 to 1."""

    background: Float32[np.ndarray, "3 height width"]
    colours: Float32[np.ndarray, "disc 3"]


def draw_look(height: int, width: int, num_discs: int, generator: np.random.Generator) -> Look:
    """Draws a muted background (solid, gradient or soft stripes) and disc colours that stand out from it."""
    background = draw_background(height, width, generator)
    luma = float(LUMA @ background.mean(axis=(1, 2)))
    colours = [draw_disc_colour(luma, generator) for _ in range(num_discs)]
    return Look(background, np.array(colours, dtype=np.float32).reshape(num_discs, 3))


def draw_background(height: int, width: int, generator: np.random.Generator) -> Float32[np.ndarray, "3 height width"]:
    """A blend of two similar muted colours along a random direction."""
    hue, saturation = generator.uniform(), generator.uniform(0.05, 0.3)
    value = generator.uniform(0.2, 0.85)
    near = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    far = np.array(
        colorsys.hsv_to_rgb(hue + generator.uniform(-0.1, 0.1), saturation, value + generator.uniform(-0.12, 0.12))
    )
    kind = generator.choice(["solid", "gradient", "stripes"])
    angle = generator.uniform(0.0, 2.0 * np.pi)
    num_stripes, phase = generator.uniform(2.0, 5.0), generator.uniform(0.0, 2.0 * np.pi)
    rows, columns = np.mgrid[:height, :width]
    along = ((columns + 0.5) / width - 0.5) * np.cos(angle) + ((rows + 0.5) / height - 0.5) * np.sin(angle)
    blend = {
        "solid": np.zeros_like(along),
        "gradient": np.clip(along + 0.5, 0.0, 1.0),
        "stripes": 0.5 + 0.5 * np.sin(2.0 * np.pi * num_stripes * along + phase),
    }[str(kind)]
    return (near[:, None, None] * (1.0 - blend) + far[:, None, None] * blend).clip(0.0, 1.0).astype(np.float32)


def draw_disc_colour(background_luma: float, generator: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draws until the colour differs enough from the background; the last draw is kept in any case."""
    colour = np.zeros(3)
    for _ in range(100):
        colour = np.array(
            colorsys.hsv_to_rgb(generator.uniform(), generator.uniform(0.35, 0.75), generator.uniform(0.2, 0.95))
        )
        if abs(float(LUMA @ colour) - background_luma) >= MIN_CONTRAST:
            break
    return colour


def distances(
    places: Float64[np.ndarray, "frame 2"], height: int, width: int
) -> Float32[np.ndarray, "frame height width"]:
    """Distance of every pixel's centre from the place (x, y) of one disc in every frame."""
    x, y = places.astype(np.float32).T
    across = (np.arange(width, dtype=np.float32) + 0.5 - x[:, None]) ** 2
    down = (np.arange(height, dtype=np.float32) + 0.5 - y[:, None]) ** 2
    return np.sqrt(down[:, :, None] + across[:, None, :])


def render(
    look: Look, places: Float64[np.ndarray, "frame_plus_1 disc 2"], radii: Float64[np.ndarray, " disc"]
) -> tuple[UInt8[np.ndarray, "frame 3 height width"], Float16[np.ndarray, "frame 2 height width"]]:
    """Draws all frames but the last at once, and the flow from each to the next.

    Returns:
        frames, and the displacement (x, y) in pixels from frame t to t + 1 of what covers most of each pixel; zero on
        the background.
    """
    num_frames = len(places) - 1
    _, height, width = look.background.shape
    frames = np.broadcast_to(look.background, (num_frames, 3, height, width)).copy()
    flow = np.zeros((num_frames, 2, height, width), dtype=np.float16)
    moves = np.diff(places, axis=0).astype(np.float16)
    for disc, radius in enumerate(radii):
        distance = distances(places[:-1, disc], height, width)
        # The edge crosses a pixel in a nearly straight line: its coverage is linear in the distance.
        coverage = np.clip(np.float32(radius + 0.5) - distance, 0.0, 1.0)[:, None]
        frames += coverage * (look.colours[disc][:, None, None] - frames)
        flow = np.where(coverage >= 0.5, moves[:, disc, :, None, None], flow)
    return np.rint(frames * 255.0).astype(np.uint8), flow
