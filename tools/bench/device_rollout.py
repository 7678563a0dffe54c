"""Rollouts of one size on one device: frames per second, also seen and heard, many at once, and code by code."""

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from streams.clip import to_uint8
from streams.settings import ClipSettings
from tools.bench.device_train import freed
from tools.bench.elapsed import Contender, race_on, that_fit
from tools.bench.race import Finding, Race, with_fastest
from tools.bench.rollout import cached, heard, raster
from tools.bench.roofline import Peaks, cache_bytes, weight_bytes
from tools.bench.settings import DeviceBenchSettings
from tools.bench.trace import print_trace
from tools.bench.train import compiler_there
from tools.bench.untrained import build_world, quantizer_settings, settings_of
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.light_weights import lighten
from worldmodel.model import WorldModel
from worldmodel.rollouts.piping import FRAMES_AT_ONCE
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.sound_blocks import SoundBlocks
from worldmodel.settings import PictureCodecSettings, SoundCodecSettings, Weights
from worldmodel.training.flops import counted

PIXELS_PER_CODE = 16  # a side, of the finest codes
OURS, SEEN, MANY, RASTER = "ours", "with pixels and sound", "many at once", "raster"
PLAIN, RECORDED, COMPILED = "operation by operation", "CUDA graph", "compiled"
SETTLED_FRAMES = 4  # after which frames are repeated
Repeating = Callable[[WorldModel, Tensor, torch.Generator, Repeat | None], Iterator[Tensor]]
RATES = {OURS: "latents", SEEN: "pixels and sound", MANY: "many"}


@dataclass(frozen=True)
class Player:
    """An untrained model of pictures and sound with the codecs that show it, on a device."""

    model: WorldModel
    picture: PictureVQ
    sound: SoundVQ

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.model.parameters()).device


def build_player(size: str, settings: DeviceBenchSettings, device: torch.device) -> Player:
    """Model and codecs with random weights.

    Raises:
        UserError: there is no such size, or no pyramid of so many codes.
    """
    torch.manual_seed(0)
    quantizer = quantizer_settings(settings.num_codes)
    side = PIXELS_PER_CODE * quantizer.grids[-1][0]
    clips = ClipSettings(height=side, width=side)
    picture = PictureVQ(PictureCodecSettings(quantizer=quantizer), clips).eval().to(device)
    sound = SoundVQ(SoundCodecSettings(), clips).eval().to(device)
    model = build_world(settings_of(size), picture.quantizer, sound.quantizer).to(device)
    lighten(model.blocks, chosen_weights(settings.weights, device))
    return Player(model.eval(), picture, sound)


def chosen_weights(weights: Literal["auto"] | Weights, device: torch.device) -> Weights:
    """What is meant by auto."""
    if weights == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return weights


def prompt_for(model: WorldModel, batch: int, num_frames: int, device: torch.device) -> Tensor:
    """Random codes of pictures and sound, (batch, frame, code)."""
    generator = torch.Generator().manual_seed(0)
    scales = [
        torch.randint(scale.vocabulary, (batch, num_frames, scale.num_codes), generator=generator)
        for scale in model.decoder.scales
    ]
    return torch.cat(scales, 2).to(device)


def begin(roll: Repeating, player: Player, batch: int, num_frames: int, how: Repeat | None = None) -> Iterator[Tensor]:
    """A rollout without an end; the first frame comes with the reading of the prompt."""
    prompt = prompt_for(player.model, batch, num_frames, player.device)
    frames = roll(player.model, prompt, torch.Generator(player.device).manual_seed(0), how)
    while True:
        with torch.inference_mode():
            frame = next(frames)
        yield frame


def imagine(frames: Iterator[Tensor], horizon: int) -> None:
    """The next frames, as codes."""
    for _ in islice(frames, horizon):
        pass


def watch(frames: Iterator[Tensor], player: Player, heard_so_far: SoundBlocks, horizon: int) -> None:
    """The next frames of a single rollout as pixels and sound; a thread decodes some while the next are imagined."""
    num_picture = player.picture.pyramid.num_codes

    def show(codes: Tensor) -> None:
        to_uint8(player.picture.decode(codes[None, :, :num_picture])).cpu()
        heard_so_far.add(codes[:, num_picture:])

    with ThreadPoolExecutor(1, "screen") as thread:
        shown = []
        while horizon > 0:
            group = [frame[0] for frame in islice(frames, min(FRAMES_AT_ONCE, horizon))]
            shown.append(thread.submit(show, torch.stack(group)))
            horizon -= len(group)
        for each in shown:
            each.result()


def measure_rollouts(
    size: str, settings: DeviceBenchSettings, device: torch.device, peaks: Peaks
) -> Iterator[Race | Finding]:
    """Races and findings of one size; `settings` are resolved, so that nothing in them is auto."""
    with freed(device):
        player = build_player(size, settings, device)
        yield from measure_player(player, size, settings, peaks)
        del player


def measure_player(player: Player, size: str, settings: DeviceBenchSettings, peaks: Peaks) -> Iterator[Race | Finding]:
    """Rollouts of all kinds in turns, from prompts that were read before; ours in the fastest of its ways."""
    device, horizon = player.device, settings.horizon
    single = partial(begin, cached, player, 1, settings.num_frames)
    ways = ways_of(device, settings.compile)
    contenders = {way: Contender(partial(imagine, single(how), horizon), horizon) for way, how in ways.items()}
    contenders, memory = that_fit(device, contenders, f"rollout, {size}")
    if not contenders:
        return
    costs, way = with_fastest(race_on(device, contenders, settings.rounds, 1), list(contenders))
    yield Race(f"ways of a rollout, {size}", size, "frames", costs, {"ours": way}, "second")
    many = begin(cached, player, settings.rollout_batch, settings.num_frames, ways[way])
    code_by_code = begin(raster, player, 1, settings.num_frames, ways.get(RECORDED))
    others = {
        SEEN: Contender(partial(watch, single(ways[way]), player, SoundBlocks(player.sound), horizon), horizon),
        RASTER: Contender(partial(imagine, code_by_code, horizon), horizon),
        MANY: Contender(partial(imagine, many, horizon), horizon * settings.rollout_batch),
    }
    others, further = that_fit(device, others, f"rollout, {size}")
    costs = race_on(device, {OURS: contenders[way], **others}, settings.rounds, 1)
    forms = {OURS: way, SEEN: way, MANY: f"{settings.rollout_batch} rollouts, {way}"}
    yield Race(f"device rollout, {size}", size, "frames", costs, forms, "second")
    for name, task in RATES.items():
        if name in costs:
            yield rate_of(f"device: {task}, {size}", size, costs[name], forms[name])
    for name, num_bytes in (memory | further).items():
        yield Finding("device: peak memory", size, name, num_bytes / 2**30, "GiB", "of a rollout")
    yield from floors_of(player, size, settings, statistics.median(costs[OURS]), peaks)
    if settings.trace:
        frames = single(ways[way])
        for _ in range(SETTLED_FRAMES):
            next(frames)
        file = Path(settings.trace)
        file = file.with_name(f"{file.stem}_frame{file.suffix}")
        print_trace(lambda: next(frames), str(file), device, f"one imagined frame of ours, {size}")


def ways_of(device: torch.device, compiled: bool) -> dict[str, Repeat | None]:
    """How a rollout can go on there: operation by operation, as a CUDA graph, compiled."""
    gpu = device.type == "cuda"
    ways: dict[str, Repeat | None] = {PLAIN: None}
    if gpu:
        ways[RECORDED] = Repeat(recorded=True)
    if compiled and compiler_there(device):
        ways[COMPILED] = Repeat(compiled=True, recorded=gpu)
    return ways


def rate_of(task: str, size: str, costs: list[float], form: str) -> Finding:
    """Frames per second, the median round."""
    middle = statistics.median(costs)
    return Finding(
        task, size, "ours", 1 / middle, "frames/s", f"{form}, spread {(max(costs) - min(costs)) / middle:.0%}"
    )


def floors_of(
    player: Player, size: str, settings: DeviceBenchSettings, seconds: float, peaks: Peaks
) -> Iterator[Finding]:
    """What a frame of a single rollout of ours takes, beside what it would take at best."""
    num_bytes, anew = frame_bytes(player, settings.num_frames)
    by_flops, by_bytes = peaks.floors(frame_flops(player, settings.num_frames), num_bytes)
    _, by_bytes_anew = peaks.floors(0, num_bytes + anew)
    read = f"{num_bytes / 2**20:.0f} MiB: every weight once, and what is kept of earlier frames"
    subject = f"one frame, {size}"
    yield Finding("device: frame", subject, "ours", 1e3 * seconds, "ms")
    yield Finding("device: floor by operations", subject, "ours", 1e3 * by_flops, "ms")
    yield Finding("device: floor by bytes", subject, "ours", 1e3 * by_bytes, "ms", read)
    yield Finding(f"device: share of the floor, {size}", size, "ours", 100 * by_bytes / seconds, "%", read)
    again = "the same with the decoder's blocks read for every scale"
    yield Finding("device: share of that floor", size, "ours", 100 * by_bytes_anew / seconds, "%", again)


@torch.inference_mode()
def frame_bytes(player: Player, num_frames: int) -> tuple[int, int]:
    """Bytes that a frame of a single rollout reads at least, and those of the decoder's blocks for its further scales.

    The first are every weight of the model once, and the keys and values of the frames in the trunk's window. A scale
    follows from the one before it, so what no cache of the device holds is read again for each.
    """
    model, cache = player.model, player.model.start()
    prompt = prompt_for(model, 1, num_frames, player.device)
    model.read(prompt, heard(model, prompt), cache)
    weights = weight_bytes(model.embeddings, model.trunk, model.decoder)
    further = (len(model.decoder.scales) - 1) * weight_bytes(model.decoder.blocks)
    window = model.trunk.window_frames
    kept = cache_bytes(cache.trunk.layers) * min(cache.trunk.num_kept, window - 1) // window
    return weights + kept, further


def frame_flops(player: Player, num_frames: int) -> int:
    """Operations of a frame of a single rollout."""
    frames = begin(cached, player, 1, num_frames)
    next(frames)  # with the reading of the prompt
    with counted(player.model) as flops:
        next(frames)
    return flops.forward
