"""`worldmodel rollout`: a video's first frames, or the codes of an earlier rollout, go on in imagination."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm import tqdm

from streams.clip import Clip
from streams.settings import ClipSettings
from worldmodel.devices import find_device
from worldmodel.errors import SettingsError
from worldmodel.evaluation.films import compare, decode_clips, joined_sound, label_rollouts, strip_of, watchable
from worldmodel.evaluation.pictures import save_png
from worldmodel.rollouts.beginning import Beginning, Run, begin_from_codes, begin_from_video
from worldmodel.rollouts.checking import CODES, PIPE, check_memory, check_repeat, check_settings
from worldmodel.rollouts.moment import FrameModel
from worldmodel.rollouts.repeated import Repeat
from worldmodel.rollouts.rollout import roll_out
from worldmodel.rollouts.rollout_codes import RolloutCodes
from worldmodel.rollouts.sampling import check_sampling
from worldmodel.run import load_run
from worldmodel.settings import RolloutSettings, SamplingSettings


def imagine(settings: RolloutSettings) -> list[str]:
    """Run the command; returns lines for the user, among them one for every file written.

    Raises:
        UserError: settings, run, prompt or codes cannot be used.
    """
    check_settings(settings)
    device = find_device(settings.device)
    check_repeat(settings, device)
    return imagine_with(load_run(settings.run, str(device), settings.weights), settings, device)


def imagine_with(run: Run, settings: RolloutSettings, device: torch.device, progress: bool = True) -> list[str]:
    """Imagine with a loaded run that is on `device`, under settings that were checked; see `imagine`."""
    check_sampling(settings.sampling, len(run.model.decoder.slices))
    piped = settings.out == PIPE
    if not piped:
        check_memory(settings.num_rollouts, settings.context_frames + settings.horizon, run.picture.clips)
    begin = begin_from_codes if settings.continue_from is not None else begin_from_video
    if piped:
        # Nothing is compared to what the video goes on with, which may be long: it is not read.
        prompt = settings.prompt if settings.continue_from is None else None
        beginning = begin(run, replace(settings, prompt=prompt, horizon=0), device)
        return pipe(run, beginning, settings, device, progress)
    beginning = begin(run, settings, device)
    start, generator = beginning.rollout, beginning.generator
    check_memory(len(start.codes), start.codes.shape[1] + settings.horizon, run.picture.clips)
    has_sound = torch.full((len(start.codes),), start.has_sound, device=device)
    imagined = imagine_frames(
        run.model,
        start.codes.to(device),
        has_sound,
        settings.horizon,
        settings.sampling,
        generator,
        progress,
        repeat_of(settings),
    )
    codes = torch.cat((start.codes, imagined), 1)
    rollout = replace(start, codes=codes, generator_state=generator.get_state(), device=generator.device.type)
    rollouts = decode_clips(run, codes.to(device), rollout.start_seconds)
    lines = write_outputs(Path(settings.out), rollout, rollouts, beginning.truth, run.picture.clips)
    if imagined.shape[1] < settings.horizon:
        lines.append(f"stopped after {imagined.shape[1]} of {settings.horizon} frames: --continue goes on from there")
    return beginning.notes + lines


def pipe(run: Run, beginning: Beginning, settings: RolloutSettings, device: torch.device, progress: bool) -> list[str]:
    """Write the beginning and what follows to stdout while it goes on; memory does not grow with the horizon.

    Raises:
        SettingsError: stdout cannot be written, is a terminal, or there is more than one rollout.
    """
    from worldmodel.rollouts.piping import Stdout, pipe_frames

    start = beginning.rollout
    if len(start.codes) > 1:
        raise SettingsError(f"{len(start.codes)} rollouts cannot be piped side by side: give the codes of one")
    stdout = Stdout()
    has_sound = torch.tensor([start.has_sound], device=device)
    frames = roll_out(
        run.model,
        start.codes.to(device),
        has_sound,
        settings.sampling,
        beginning.generator,
        how=repeat_of(settings),
    )
    bar = tqdm(islice(frames, settings.horizon), "imagining", settings.horizon, unit="frame", disable=not progress)

    def imagined() -> Iterator[Tensor]:
        yield from start.codes[0]
        for frame in bar:
            yield frame[0].cpu()  # waits for it, so the bar's rate is that of finished frames

    try:
        with torch.inference_mode():
            num_written = pipe_frames(run, imagined(), stdout, device)
    except OSError as error:
        raise SettingsError(f"out=-: stdout cannot be written: {error.strerror or error}") from error
    finally:
        bar.close()  # what is told next has a line of its own
    num_context = start.codes.shape[1]
    line = f"{min(num_context, num_written)} frames of context, {max(0, num_written - num_context)} imagined"
    whole = num_written == num_context + settings.horizon
    return [*beginning.notes, f"stdout: {line}" + ("" if whole else f", of {settings.horizon}: it was stopped")]


@torch.inference_mode()
def imagine_frames(
    model: FrameModel,
    codes: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    horizon: int,
    sampling: SamplingSettings,
    generator: torch.Generator,
    progress: bool = False,
    how: Repeat | None = None,
) -> Int[Tensor, "batch horizon code"]:
    """Codes of the frames after these, on the CPU, with a bar that shows frames per second.

    Rollouts of one prompt share the reading of it. After Ctrl-C there are fewer frames than were asked for, at least
    one, and the generator is where it was after the last of them.
    """
    num_rollouts = len(codes) if bool((codes == codes[:1]).all() and (has_sound == has_sound[:1]).all()) else 1
    codes, has_sound = codes[::num_rollouts], has_sound[::num_rollouts]
    frames = islice(roll_out(model, codes, has_sound, sampling, generator, num_rollouts, how), horizon)
    bar = tqdm(frames, "imagining", horizon, unit="frame", disable=not progress)
    found: list[Tensor] = []
    try:
        for frame in bar:
            # Copying every frame to the CPU waits for it, so the bar's rate is that of finished frames.
            found.append(frame.cpu())
            after = generator.get_state()
    except KeyboardInterrupt:
        if not found:
            raise
        generator.set_state(after)
    return torch.stack(found, 1)


def write_outputs(
    out: Path, rollout: RolloutCodes, rollouts: Sequence[Clip], truth: Clip | None, clips: ClipSettings
) -> list[str]:
    """Write videos, film strip and codes; returns one line for each file, and the comparison with the truth."""
    from streams.pyav.writer import write_video

    out.parent.mkdir(parents=True, exist_ok=True)
    num_context, num_frames = rollout.num_prompt_frames, rollout.codes.shape[1]
    lines = []
    names = [out] if len(rollouts) == 1 else [out.with_stem(f"{out.stem}_{number}") for number in range(len(rollouts))]
    for path, clip in zip(names, rollouts, strict=True):
        sound = joined_sound(clip, clips)
        factor = watchable(*clip.frames.shape[-2:])
        write_video(path, clip.frames, clips.frames_per_second, sound, clips.sample_hz, factor=factor)
        heard = "no sound" if sound is None else "with sound"
        lines.append(f"{path}: {num_context} frames of context, {num_frames - num_context} imagined, {heard}")
    strip, codes = out.with_suffix(".png"), out.with_suffix(CODES)
    save_png(strip_of(label_rollouts(truth, rollouts), num_context, clips), strip)
    rollout.save(codes)
    lines.append(f"{strip}: film strip; imagination begins at the line")
    lines.append(f"{codes}: codes, to be continued")
    return lines + ([] if truth is None else comparison_lines(compare(truth, rollouts, num_context)))


def comparison_lines(compared: dict[str, dict[int, float]]) -> list[str]:
    """A small table, unless nothing was compared."""
    horizons = sorted({horizon for values in compared.values() for horizon in values})
    if not horizons:
        return []
    table = {"PSNR in dB at horizon": [f"{horizon:8}" for horizon in horizons]}
    table |= {method: [f"{values[horizon]:8.2f}" for horizon in horizons] for method, values in compared.items()}
    return [f"{name:24}{''.join(cells)}" for name, cells in table.items()]


def repeat_of(settings: RolloutSettings) -> Repeat | None:
    """How frames are repeated, if they are."""
    return Repeat(settings.compile, settings.cuda_graph) if settings.compile or settings.cuda_graph else None
