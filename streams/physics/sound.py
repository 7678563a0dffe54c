"""How the world sounds: every impact rings the disc, over a noise floor that is the same in all videos."""

import numpy as np
from jaxtyping import Float32, Float64

from streams.physics.simulation import Motion
from streams.settings import PhysicsSettings

# A disc of a seventh of the box's height rings at this pitch; smaller ones higher.
PITCH_HZ = 600.0
PITCH_RADIUS = 1.0 / 7.0
PITCH_POWER = 1.5
DECAY_SECONDS = 0.06
RING_SECONDS = 0.4
# Loudness at the speed of a fall over the box's height.
LOUDNESS = 0.3


def pitch_hz(radii: Float64[np.ndarray, " disc"], height: int) -> Float64[np.ndarray, " disc"]:
    """Pitch at which discs of these radii (in pixels) ring in a box of this height."""
    return PITCH_HZ * (PITCH_RADIUS * height / radii) ** PITCH_POWER


def ring(settings: PhysicsSettings, motion: Motion, generator: np.random.Generator) -> Float32[np.ndarray, " sample"]:
    """Sound of a video: a decaying sine per impact, as loud as the impact is fast, and the noise floor."""
    num_samples = round(settings.num_frames / settings.frames_per_second * settings.sample_hz)
    sound = generator.normal(0.0, settings.noise, num_samples)
    pitches = pitch_hz(motion.radii, settings.height)
    for seconds, disc, speed in motion.impacts:
        first = int(np.ceil(seconds * settings.sample_hz))
        last = min(num_samples, first + round(RING_SECONDS * settings.sample_hz))
        since = np.arange(first, last) / settings.sample_hz - seconds
        tone = np.sin(2.0 * np.pi * pitches[int(disc)] * since) * np.exp(-since / DECAY_SECONDS)
        sound[first:last] += LOUDNESS * speed / motion.fall_speed * tone
    return np.clip(sound, -1.0, 1.0).astype(np.float32)
