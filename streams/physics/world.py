"""One seed, one clip: the physics world put together and written as a video with its truth beside it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from streams.physics.appearance import Look, draw_look, render
from streams.physics.simulation import Motion, simulate
from streams.physics.sound import ring
from streams.settings import EncoderSettings, PhysicsSettings

# Raised whenever the same settings and seed would give another video, so that older files are made again.
VERSION = 1


@dataclass(frozen=True)
class PhysicsClip:
    """A rendered world. Flow is the displacement (x, y) in pixels from each frame to the next."""

    frames: UInt8[np.ndarray, "frame 3 height width"]
    flow: Float16[np.ndarray, "frame 2 height width"]
    sound: Float32[np.ndarray, " sample"]
    motion: Motion
    look: Look
    encoder: EncoderSettings


def generator_of(*key: int) -> np.random.Generator:
    """A generator that depends on the whole key, so that each purpose draws independently of the others."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def make_clip(settings: PhysicsSettings, seed: int) -> PhysicsClip:
    """Simulates and renders the clip of one seed; motion, look, noise and encoder have their own generators."""
    motion = simulate(settings, generator_of(seed, 0))
    look = draw_look(settings.height, settings.width, len(motion.radii), look_generator(settings, seed))
    frames, flow = render(look, motion.states[:, :, :2], motion.radii)
    sound = ring(settings, motion, generator_of(seed, 2, settings.look))
    return PhysicsClip(frames, flow, sound, motion, look, draw_encoder(generator_of(seed, 3, settings.look)))


def look_generator(settings: PhysicsSettings, seed: int) -> np.random.Generator:
    """Where a video's look comes from: its own draws, or one of `num_looks` that all videos share."""
    generator = generator_of(seed, 1, settings.look)
    if settings.num_looks == 0:
        return generator
    return generator_of(int(generator.integers(settings.num_looks)), 4, settings.look)


def draw_encoder(generator: np.random.Generator) -> EncoderSettings:
    """Encoder settings vary, so that no trace of the encoder tells the speed or the direction of time."""
    return EncoderSettings(
        crf=int(generator.integers(16, 25)),
        gop_frames=int(generator.choice([4, 8, 15, 30, 250])),
        num_b_frames=int(generator.integers(0, 4)),
        preset=str(generator.choice(["superfast", "veryfast", "fast", "medium"])),
    )


def paths_of(folder: Path, seed: int) -> tuple[Path, Path]:
    """Paths of the video and of the truth of one seed."""
    return folder / f"physics_{seed:07d}.mp4", folder / f"physics_{seed:07d}.truth.npz"


def describe(settings: PhysicsSettings, seed: int) -> str:
    """What decides the content of a clip, as one line of JSON."""
    return json.dumps({"version": VERSION, "seed": seed, **asdict(settings)}, sort_keys=True)


def is_complete(folder: Path, settings: PhysicsSettings, seed: int) -> bool:
    """True if the video of this seed is there and its truth says that it was made with the same settings."""
    video, truth = paths_of(folder, seed)
    if not (video.exists() and truth.exists()):
        return False
    with np.load(truth, allow_pickle=False) as arrays:
        return str(arrays["settings"]) == describe(settings, seed)


def write_clip(folder: Path, settings: PhysicsSettings, seed: int) -> bool:
    """Writes one clip unless it is complete; returns whether it was written.

    The truth is complete before its video appears, and a video of other settings goes before its truth is replaced: a
    video that is there always has its own truth.
    """
    if is_complete(folder, settings, seed):
        return False
    # Only here, so that the world can be simulated where neither torch nor a media library is loaded.
    import torch

    from streams.pyav.writer import write_video

    clip = make_clip(settings, seed)
    video, truth = paths_of(folder, seed)
    video.unlink(missing_ok=True)
    partial = truth.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        states=clip.motion.states[:-1],
        radii=clip.motion.radii,
        colours=clip.look.colours,
        impacts=clip.motion.impacts,
        flow=clip.flow,
        settings=np.array(describe(settings, seed)),
    )
    partial.replace(truth)
    frames, sound = torch.from_numpy(clip.frames), torch.from_numpy(clip.sound)
    write_video(video, frames, settings.frames_per_second, sound, settings.sample_hz, clip.encoder)
    return True
