"""The door to TensorBoard: scalars, pictures, film strips, videos, sound and text of a run."""

import io
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] (generated)
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from worldmodel.errors import CheckpointError

FOLDER = "tensorboard"


class Report:
    """Writes into RUN/tensorboard on rank 0, and does nothing elsewhere.

    Every method raises CheckpointError where the disk is full; TensorBoard writes in a thread, so that may be late.
    """

    def __init__(self, run: Path, first_step: int = 1, main: bool = True) -> None:
        """Opens the writer.

        Args:
            run: folder of the run.
            first_step: where the run goes on; what was reported from there on before is dropped from the curves, also
                where it was stopped before its first checkpoint and begins again.
            main: whether this process writes.
        """
        self.folder = run / FOLDER
        self.writer: SummaryWriter | None = None
        if main:
            hide_tracebacks_of_writers()
            with self.guarded():
                self.writer = SummaryWriter(str(self.folder), purge_step=first_step)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Names the folder in what the disk has to say."""
        try:
            yield
        except OSError as error:
            self.writer = None
            raise CheckpointError(f"cannot write {self.folder} ({error}): make room there and resume") from error

    def scalars(self, values: Mapping[str, float | int], step: int) -> None:
        """Numbers by name; those that are not finite are left out."""
        for name, value in values.items():
            if self.writer is not None and math.isfinite(value):
                with self.guarded():
                    self.writer.add_scalar(name, value, step)

    def image(self, name: str, picture: UInt8[Tensor, "height width 3"], step: int) -> None:
        """One RGB picture."""
        if self.writer is not None:
            with self.guarded():
                self.writer.add_image(name, picture.cpu().numpy(), step, dataformats="HWC")

    def film_strip(self, name: str, frames: UInt8[Tensor, "row frame 3 height width"], step: int) -> None:
        """Frames side by side, one row per video (the truth above its rollout, say)."""
        rows, num_frames, _, height, width = frames.shape
        strip = frames.permute(0, 3, 1, 4, 2).reshape(rows * height, num_frames * width, 3)
        self.image(name, strip, step)

    def video(
        self, name: str, frames: UInt8[Tensor, "frame 3 height width"], step: int, frames_per_second: float | int
    ) -> None:
        """A moving picture, as a GIF: TensorBoard's own `add_video` needs moviepy and is silent without it."""
        if self.writer is None:
            return
        pictures = frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        _, height, width, _ = pictures.shape
        moving = gif(pictures, frames_per_second)
        summary = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=moving)
        with self.guarded():
            self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=summary)]), step)

    def sound(self, name: str, samples: Float[Tensor, " sample"], step: int, sample_hz: int) -> None:
        """Mono sound in -1..1; what is louder is clipped."""
        if self.writer is not None:
            with self.guarded():
                self.writer.add_audio(name, samples.detach().float().cpu().clamp(-1, 1), step, sample_rate=sample_hz)

    def text(self, name: str, text: str, step: int) -> None:
        """Markdown."""
        if self.writer is not None:
            with self.guarded():
                self.writer.add_text(name, text, step)

    def flush(self) -> None:
        """Writes out what is still in memory."""
        if self.writer is not None:
            with self.guarded():
                self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self.writer is not None:
            with self.guarded():
                self.writer.close()


def hide_tracebacks_of_writers() -> None:
    """A thread of TensorBoard's that cannot write ends with a traceback; the next call tells the same error."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        of_writer = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (of_writer and isinstance(arguments.exc_value, OSError)):
            before(arguments)

    if getattr(before, "__qualname__", "") != hook.__qualname__:
        threading.excepthook = hook


def gif(pictures: UInt8[np.ndarray, "frame height width 3"], frames_per_second: float | int) -> bytes:
    """An endless GIF; its clock ticks in hundredths of a second, and browsers slow down below two of them."""
    # Dithering would flicker from frame to frame.
    images = [
        Image.fromarray(picture).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    file = io.BytesIO()
    milliseconds = max(20, 10 * round(100 / frames_per_second))
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=False)
    return file.getvalue()


def read_scalars(run: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of one curve of a run, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / FOLDER), {"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]
