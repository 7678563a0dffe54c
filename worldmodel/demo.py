"""`worldmodel demo`: the whole path on a small physics world, each stage by the command a user would type."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worldmodel.errors import SettingsError, UserError
from worldmodel.settings import DemoSettings

CONFIGS = Path(os.path.relpath(Path(__file__).resolve().parent.parent / "configs"))
NUM_VIDEOS, NUM_QUICK_VIDEOS = 1200, 60
FIRST_VIDEO, FIRST_PROMPT = 10_000, 2_000_000  # seeds; no training has seen the prompts
NUM_PROMPTS = 3


@dataclass(frozen=True)
class Stage:
    """One line that says what is going on, one command, and the file that is there when it is done."""

    title: str
    command: tuple[str, ...]
    done: Path | None = None


def run_demo(settings: DemoSettings) -> int:
    """Run all stages, each in its own process; stages that an earlier, stopped demo finished are kept.

    Returns:
        Exit status: 0 when the table is passed (or the demo was quick), 3 when it is not.

    Raises:
        UserError: a stage failed.
    """
    if not CONFIGS.is_dir():
        raise SettingsError(f"{CONFIGS} is missing: run the demo from a checkout of the repository")
    folder = Path(settings.folder)
    start, status = time.monotonic(), 0
    plan = list(stages(folder, settings.quick))
    for number, stage in enumerate(plan, 1):
        print(f"\n[{number}/{len(plan)}] {stage.title}", flush=True)
        if stage.done is not None and stage.done.exists():
            print(f"      kept from before: {stage.done}", flush=True)
            continue
        print(f"      $ {' '.join(stage.command)}", flush=True)
        began = time.monotonic()
        code = subprocess.run(_resolve(stage.command), check=False).returncode
        if code == 3 and "evaluate" in stage.command:
            status = 0 if settings.quick else 3
        elif code != 0:
            raise UserError(f"the demo stopped at stage {number} (exit status {code}); run it again to go on there")
        print(f"      {time.monotonic() - began:.0f} s", flush=True)
    print(ending(folder, time.monotonic() - start, settings.quick, status))
    return status


def stages(folder: Path, quick: bool) -> Iterator[Stage]:
    """The whole path."""
    videos, prompts, cache = folder / "videos", folder / "prompts", folder / "latents.zarr"
    picture, sound, world = folder / "picture", folder / "sound", folder / "world"
    num_videos = NUM_QUICK_VIDEOS if quick else NUM_VIDEOS
    yield Stage(
        f"{num_videos} videos of a physics world: discs fall, bounce and ring",
        _videos(videos, num_videos, FIRST_VIDEO),
    )
    yield Stage(f"{NUM_PROMPTS} more that no training sees", _videos(prompts, NUM_PROMPTS, FIRST_PROMPT))
    yield Stage(
        "picture codec: frames become pyramids of codes",
        _train("tokenizer", "tokenizer/physics_picture.yaml", picture, ("--videos", str(videos)), quick, 60),
        picture / "codec.json",
    )
    yield Stage(
        "sound codec: every frame's slice of sound becomes codes",
        _train("tokenizer", "tokenizer/physics_sound.yaml", sound, ("--videos", str(videos)), quick, 40),
        sound / "codec.json",
    )
    build = ("python", "-m", "tools.latents", "build", str(videos), str(cache), "--codec", str(picture), str(sound))
    yield Stage(
        "latent cache: all videos as codes, encoded once", (*build, "--clips.num_frames", "32"), cache / "zarr.json"
    )
    inputs = ("--cache", str(cache), "--codecs", str(picture), str(sound))
    yield Stage(
        "world model: predicts the next frame's codes, coarse to fine, then its sound",
        _train("train", "train/physics.yaml", world, inputs, quick, 30),
    )
    clips = ("--num_clips", "16") if quick else ()
    yield Stage("is it better than copying, than guessing?", ("worldmodel", "evaluate", str(world), *clips))
    for number in range(NUM_PROMPTS):
        prompt, out = prompts / f"physics_{FIRST_PROMPT + number:07d}.mp4", folder / f"rollout_{number}.mp4"
        yield Stage(
            "rollout: it has seen 8 frames and imagines 32",
            ("worldmodel", "rollout", str(world), "--prompt", str(prompt), "--out", str(out)),
        )


def ending(folder: Path, seconds: float, quick: bool, status: int) -> str:
    """What to look at and what to try next."""
    verdict = {0: "everything required was passed", 3: "not everything required was passed, see the table"}[status]
    if quick:
        verdict = "quick: nothing is promised about the quality"
    return f"""
{seconds / 60:.1f} minutes; {verdict}.

look at   {folder}/rollout_0.png            prompt and truth above the rollout
          {folder}/world/evaluation.png     PSNR and drift over the horizon
listen to {folder}/rollout_0.mp4
watch     .venv/bin/tensorboard --logdir {folder}

with your own videos:
  worldmodel tokenizer --config configs/tokenizer/picture.yaml --videos VIDEOS --run runs/picture
  worldmodel tokenizer --config configs/tokenizer/sound.yaml --videos VIDEOS --run runs/sound
  python -m tools.latents build VIDEOS runs/latents.zarr --codec runs/picture runs/sound
  worldmodel train --config configs/train/small.yaml --cache runs/latents.zarr \\
      --codecs runs/picture runs/sound --run runs/world
  worldmodel rollout runs/world --prompt VIDEO --horizon 32 --out out.mp4"""


def _videos(folder: Path, count: int, seed: int) -> tuple[str, ...]:
    return ("python", "-m", "tools.videos", "physics", str(folder), "--num-videos", str(count), "--seed", str(seed),
            "--world.max_discs", "2", "--world.num_looks", "4", "--world.seconds", "3.2",
            "--world.min_radius", "0.13", "--world.max_radius", "0.19",
            "--world.min_restitution", "0.65", "--world.max_restitution", "0.85",
            "--world.fall_seconds", "1.6", "--world.start_speed", "0.7")  # fmt: skip


def _train(
    command: str, config: str, run: Path, inputs: tuple[str, ...], quick: bool, quick_steps: int
) -> tuple[str, ...]:
    if (run / "checkpoints" / "latest").is_file():
        return ("worldmodel", command, "--resume", str(run))
    steps = ("--training.steps", str(quick_steps)) if quick else ()
    return ("worldmodel", command, "--config", str(CONFIGS / config), "--run", str(run), *inputs, *steps)


def _resolve(command: tuple[str, ...]) -> list[str]:
    """The same command with this interpreter, whether or not the environment is active."""
    if command[0] == "worldmodel":
        return [sys.executable, "-m", *command]
    return [sys.executable, *command[1:]]
