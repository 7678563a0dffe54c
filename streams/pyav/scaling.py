"""Decoded frames to upright RGB of one size, by FFmpeg's own scaler."""

import av
import numpy as np
from av.filter import Graph
from jaxtyping import UInt8

from streams.geometry import Box, crop_box

# Antialiased like `streams.geometry.resize_crop`. Bicubic and area are further from it, fast_bilinear is far off
# (23 dB), and without the last two flags colours are off.
FLAGS = "bilinear+full_chroma_int+accurate_rnd"
# Colours that are stored at the size of the result would be shown as they are, where the resize of the full-size frame
# smooths them by about [1, 6, 1] / 8. This filter has nearly these weights for them, and nearly those of the bilinear
# one for the brightness, which is stored at twice the size. No scaler flag chooses a filter for the colours alone.
SMOOTH_FLAGS = "bicubic+full_chroma_int+accurate_rnd:param0=0.55:param1=0.25"


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Quarter turns to the left that make a frame upright, and whether it is to be mirrored after them."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    # A column of the picture goes (right, down) on the screen.
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
    mirrored = bool(np.linalg.det(matrix) < 0)
    right, down = matrix[0]
    return round(-np.arctan2(down, -right if mirrored else right) / (np.pi / 2)) % 4, mirrored


def scaler_flags(stored: av.VideoFormat, box: Box, height: int, width: int) -> str:
    """How FFmpeg's scaler is to filter frames of a format.

    Args:
        stored: format of the frames.
        box: part of them that is kept.
        height: of the result.
        width: of the result.
    """
    columns, rows = stored.chroma_width(box.width), stored.chroma_height(box.height)
    places = ""
    # The scaler filters colours of equal size only where they are not exactly in place: 1/128 of their pixel away.
    if columns == width < box.width:
        places += f":in_h_chr_pos={127 * round(box.width / columns) - 128}"
    if rows == height < box.height:
        places += f":in_v_chr_pos={127 * round(box.height / rows) - 128}"
    return SMOOTH_FLAGS + places if places else FLAGS


class Scaler:
    """Crops, scales and converts frames in one pass over the pixels that are kept.

    A graph of filters, since only so the crop costs nothing, and the planar RGB of the scaler's fast path comes out.
    """

    def __init__(self, pixel_aspect: float = 1.0) -> None:
        """Frames whose pixels are `pixel_aspect` times as wide as they are high."""
        self.pixel_aspect = pixel_aspect
        self.graphs: dict[tuple, Graph] = {}

    def __call__(
        self,
        frame: av.VideoFrame,
        out: UInt8[np.ndarray, "3 height width"],
        crop: bool,
        turns: int = 0,
        mirrored: bool = False,
    ) -> None:
        """Writes a frame, upright, into `out`.

        Args:
            frame: as decoded.
            out: where to; its size is that of the result.
            crop: keep the aspect and cut what is too much; else the whole frame is stretched to the size.
            turns: quarter turns to the left.
            mirrored: exchange left and right after turning.
        """
        height, width = out.shape[1:] if turns % 2 == 0 else out.shape[:0:-1]
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, height, width, crop)
        if key not in self.graphs:
            # A video that changes its format at every frame must not fill the memory with graphs.
            self.graphs = {key: self.build(frame, height, width, crop)}
        graph = self.graphs[key]
        graph.vpush(frame)
        scaled = graph.vpull()
        green, blue, red = scaled.planes
        for channel, plane in enumerate((red, green, blue)):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, -1)[:, :width]
            upright = np.rot90(rows, turns) if turns else rows
            out[channel] = upright[:, ::-1] if mirrored else upright

    def build(self, frame: av.VideoFrame, height: int, width: int, crop: bool) -> Graph:
        """A graph for frames like this one."""
        graph = Graph()
        graph.threads = 1
        source = graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base="1/1",
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        chain = [source]
        box = Box(0, 0, frame.height, frame.width)
        if crop:
            box = crop_box(frame.height, frame.width, height, width, self.pixel_aspect)
            chain.append(graph.add("crop", f"{box.width}:{box.height}:{box.left}:{box.top}:exact=1"))
        chain.append(graph.add("scale", f"{width}:{height}:flags={scaler_flags(frame.format, box, height, width)}"))
        chain.append(graph.add("format", "gbrp"))
        graph.link_nodes(*chain, graph.add("buffersink")).configure()
        return graph
