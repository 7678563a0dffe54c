"""Pictures for people: film strips of a clip beside its rollout, GIFs, and sound as a row of mel slices."""

import io
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BACKGROUND, INK, LINE = (255, 255, 255), (30, 30, 30), (220, 30, 30)
GAP = 2  # pixels between frames
FONT_SIZE = 12


def film_strip(
    rows: dict[str, UInt8[Tensor, "frame 3 height width"]],
    every: int = 1,
    scale_up: int = 1,
    num_context: int | None = None,
    frames_per_second: float | None = None,
    sound: dict[str, Float[Tensor, "frame mel slice"]] | None = None,
    first: int = 0,
) -> Image.Image:
    """Frames side by side in time, one row for each label, with the frame's number (and second) above.

    Args:
        rows: films by label. A row that is shorter than the longest stays empty at its end.
        every: show one frame out of so many.
        scale_up: whole factor of enlargement, without smoothing: pixels stay visible.
        num_context: where the horizon begins; a red line is drawn before the first frame shown that was imagined.
        frames_per_second: to print seconds below the number of a frame.
        sound: log-mel slices by label, drawn as rows below; loud is dark. Bright to dark is the range of all rows.
            Below a frame stands all sound until the next frame shown, so that nothing is left out.
        first: the first frame shown.

    Raises:
        ValueError: when there is no row, or frames differ in size.
    """
    sizes = {tuple(frames.shape[1:]) for frames in rows.values()}
    if len(sizes) != 1:
        raise ValueError(f"frames of sizes {sorted(sizes)}, expected rows of one size")
    _, height, width = sizes.pop()
    cell_height, cell_width = height * scale_up, width * scale_up
    longest = max(len(frames) for frames in [*rows.values(), *(sound or {}).values()])
    shown = list(range(first, longest, every))
    font = ImageFont.load_default(FONT_SIZE)
    left = max(_text_width(font, label) for label in [*rows, *(sound or {})]) + 8
    top = _header_height(frames_per_second)
    num_rows = len(rows) + len(sound or {})
    strip = Image.new("RGB", (left + len(shown) * (cell_width + GAP), top + num_rows * (cell_height + GAP)), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for column, frame in enumerate(shown):
        _draw_header(draw, font, (left + column * (cell_width + GAP), cell_width), frame, frames_per_second)
    cells = {label: _cells(frames, shown) for label, frames in rows.items()}
    cells |= {label: _sound_cells(frames, shown, every) for label, frames in _mel_pictures(sound or {}).items()}
    for row, (label, pictures) in enumerate(cells.items()):
        y = top + row * (cell_height + GAP)
        draw.text((4, y + cell_height // 2), label, INK, font, anchor="lm")
        for column, picture in enumerate(pictures):
            # As sharp as the nearest pixel where it enlarges; a mean where slices of sound are narrower than a pixel.
            cell = picture.resize((cell_width, cell_height), Image.Resampling.BOX)
            strip.paste(cell, (left + column * (cell_width + GAP), y))
    if num_context is not None:
        column = sum(frame < num_context for frame in shown)
        x = left + column * (cell_width + GAP) - GAP
        draw.rectangle((x, 0, x + GAP - 1, strip.height), LINE)
    return strip


def frame_pictures(frames: UInt8[Tensor, "frame 3 height width"]) -> list[Image.Image]:
    """Every frame as a picture."""
    arrays = np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy(force=True))
    return [Image.fromarray(array) for array in arrays]


def gif_bytes(frames: UInt8[Tensor, "frame 3 height width"], frames_per_second: float, scale_up: int = 1) -> bytes:
    """An endless GIF, for TensorBoard and web pages. Its times are whole hundredths of a second, its colours 256.

    Raises:
        ValueError: when there is no frame.
    """
    if len(frames) == 0:
        raise ValueError("no frames: a GIF needs at least one")
    size = frames.shape[3] * scale_up, frames.shape[2] * scale_up
    pictures = [picture.resize(size, Image.Resampling.NEAREST) for picture in frame_pictures(frames)]
    # Frame t is shown until round(100 (t + 1) / rate), so rounding does not add up over the film.
    ends = [round(100 * frame / frames_per_second) for frame in range(len(pictures) + 1)]
    durations = [10 * max(1, stop - start) for start, stop in itertools.pairwise(ends)]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
    )
    return buffer.getvalue()


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Write a PNG that appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        picture.save(file, "PNG")
    Path(temporary).chmod(0o644)  # mkstemp's are for the owner alone
    Path(temporary).replace(path)


def side_by_side(
    films: list[UInt8[Tensor, "*frame 3 height width"]],
) -> UInt8[Tensor, "*frame 3 height all_widths"]:
    """Films of one length (or single frames) next to each other, as one."""
    return torch.cat(films, dim=-1)


def _mel_pictures(
    sound: dict[str, Float[Tensor, "frame mel slice"]],
) -> dict[str, UInt8[Tensor, "frame 3 height width"]]:
    """Log-mel slices as frames: low notes at the bottom, loud is dark, one range for all rows."""
    if not sound:
        return {}
    low = min(float(mel.min()) for mel in sound.values())
    high = max(float(mel.max()) for mel in sound.values())
    pictures = {}
    for label, mel in sound.items():
        grey = 255 - (mel.flip(1) - low) / max(high - low, 1e-9) * 255
        pictures[label] = grey.round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    return pictures


def _cells(frames: UInt8[Tensor, "frame 3 height width"], shown: list[int]) -> list[Image.Image]:
    return frame_pictures(frames[[frame for frame in shown if frame < len(frames)]])


def _sound_cells(frames: UInt8[Tensor, "frame 3 height width"], shown: list[int], every: int) -> list[Image.Image]:
    """The sound of `every` frames from each frame shown, left to right; white where it ends."""
    padded = torch.nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, 0, every), value=255)
    joined = [side_by_side(list(padded[frame : frame + every])) for frame in shown if frame < len(frames)]
    return [picture for cell in joined for picture in frame_pictures(cell[None])]


def _header_height(frames_per_second: float | None) -> int:
    return (FONT_SIZE + 2) * (1 if frames_per_second is None else 2) + 2


def _text_width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return round(font.getlength(text))


def _draw_header(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    column: tuple[int, int],
    frame: int,
    frames_per_second: float | None,
) -> None:
    """Number of a frame and its second above its column, given as (start, width); what does not fit is left out."""
    lines = [str(frame)] if frames_per_second is None else [str(frame), f"{frame / frames_per_second:.2f} s"]
    for line, text in enumerate(lines):
        if _text_width(font, text) <= column[1] + GAP:
            draw.text((column[0] + column[1] // 2, 1 + line * (FONT_SIZE + 2)), text, INK, font, anchor="ma")
