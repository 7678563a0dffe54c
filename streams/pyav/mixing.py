"""Changing the rate and the layout of sound, by FFmpeg's own arithmetic."""

import struct
from math import gcd

import av
import numpy as np
from jaxtyping import Float32

# FFmpeg keeps the planes of more channels elsewhere, where PyAV does not look.
MAX_PLANES = 7
# Samples, at the lower of two rates, that FFmpeg's filter reaches to either side.
REACH = 16
# FFmpeg's numbers of the mixes (Lt/Rt, Dolby Pro Logic II) that have levels of their own.
LTRT_KINDS = (2, 3)
LAYOUTS = {1: "mono", 2: "stereo"}


class Mixer:
    """Decoded frames in, mono or stereo at the rate of the first frame out.

    Attributes:
        hz: that rate.
    """

    def __init__(self, first: av.AudioFrame, num_channels: int) -> None:
        """Reads the format of the first frame, into which all later ones are converted."""
        packed = first.format.packed.name
        self.hz, self.layout, self.time_base = first.sample_rate, first.layout, first.time_base
        self.format = first.format.name if self.layout.nb_channels <= MAX_PLANES else packed
        self.matrix = mixing_matrix(first, num_channels)
        self.fifo = av.AudioFifo()
        self.converters: dict[tuple[str, str, int], av.AudioResampler] = {}
        # Frames with as many channels go straight into the queue, which checks their format and rate itself.
        self.num_ready = self.layout.nb_channels if self.format == first.format.name else 0

    def write(self, frame: av.AudioFrame) -> int:
        """Takes a frame (its time is lost); returns how many samples it holds at our rate."""
        frame.pts = None
        if frame.layout.nb_channels == self.num_ready:
            try:
                self.fifo.write(frame)
            except ValueError:
                return self.convert(frame)
            return frame.samples
        return self.convert(frame)

    def convert(self, frame: av.AudioFrame) -> int:
        """Takes a frame of another format, layout or rate than the first."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind not in self.converters:
            self.converters[kind] = av.AudioResampler(self.format, self.layout, self.hz)
        converted = self.converters[kind].resample(frame)
        for part in converted:
            part.pts, part.time_base = None, self.time_base
            self.fifo.write(part)
        return sum(part.samples for part in converted)

    def take(self) -> Float32[np.ndarray, "channel sample"]:
        """What was written since the last time, mixed."""
        frame = self.fifo.read()
        if frame is None:
            return self.matrix[:, :0]
        sound = to_floats(frame)
        # Channel by channel: NumPy does so several times faster than it multiplies a matrix of one or two rows.
        mixed = self.matrix[:, :1] * sound[0]
        for number, channel in enumerate(sound[1:], 1):
            mixed += self.matrix[:, number, None] * channel
        return mixed


class Resampler:
    """Resamples one block after another, each as if there were silence around it.

    Kept open, since making FFmpeg's filters takes as long as resampling a second of sound.

    Attributes:
        step: blocks are whole numbers of so many samples, in which both rates meet.
    """

    def __init__(self, from_hz: int, to_hz: int, num_channels: int) -> None:
        """Nothing is made before the first block."""
        common = gcd(from_hz, to_hz)
        self.from_hz, self.step, self.step_out = from_hz, from_hz // common, to_hz // common
        self.layout = LAYOUTS[num_channels]
        self.filter = av.AudioResampler(format="fltp", layout=self.layout, rate=to_hz)
        reach = 4 * REACH * max(1.0, from_hz / to_hz)
        self.silence = np.zeros((num_channels, int(np.ceil(reach / self.step)) * self.step), dtype=np.float32)
        # Steps sent, and samples received.
        self.sent = self.received = 0

    def __call__(self, block: Float32[np.ndarray, "channel sample"]) -> Float32[np.ndarray, "channel resampled"]:
        """The same duration at the other rate; the first sample keeps its time."""
        if self.step == self.step_out:
            return block
        padded = np.concatenate([block, self.silence], axis=1)
        frame = av.AudioFrame.from_ndarray(padded, format="fltp", layout=self.layout)
        frame.sample_rate = self.from_hz
        got = np.concatenate([part.to_ndarray() for part in self.filter.resample(frame)], axis=1)
        first = self.sent * self.step_out - self.received
        self.sent += padded.shape[1] // self.step
        self.received += got.shape[1]
        # Never more comes out than went in, and the silence has pushed out the last of the block.
        return got[:, first : first + block.shape[1] // self.step * self.step_out]


def mixing_matrix(first: av.AudioFrame, num_channels: int) -> Float32[np.ndarray, "to from"]:
    """FFmpeg's matrix from the layout of a frame to mono or stereo.

    FFmpeg mixes whole numbers more softly, so that none overflows; and as the sound's author wishes, if the frame says.
    """
    whole_numbers = first.format.packed.name not in ("flt", "dbl")
    one = np.array(0.5 * 2**15, np.int16) if whole_numbers else np.array(0.5, np.float32)
    identity = np.eye(first.layout.nb_channels, dtype=one.dtype) * one
    frame = av.AudioFrame.from_ndarray(identity.reshape(1, -1), "s16" if whole_numbers else "flt", first.layout)
    frame.sample_rate = 48000
    mixer = av.AudioResampler("fltp", LAYOUTS[num_channels], 48000, options=wishes_of(first))
    mixed = [part.to_ndarray() for part in (*mixer.resample(frame), *mixer.resample(None))]
    return 2 * np.concatenate(mixed, axis=1)


def wishes_of(frame: av.AudioFrame) -> dict[str, str]:
    """How loud the author wants the middle, the surround and the bass channels in the mix, as options of FFmpeg's."""
    told = frame.side_data.get("DOWNMIX_INFO")
    if told is None:
        return {}
    kind, middle, middle_ltrt, surround, surround_ltrt, bass = struct.unpack("i4x5d", bytes(told)[:48])
    if kind in LTRT_KINDS:
        middle, surround = middle_ltrt, surround_ltrt
    return {"center_mix_level": str(middle), "surround_mix_level": str(surround), "lfe_mix_level": str(bass)}


def to_floats(frame: av.AudioFrame) -> Float32[np.ndarray, "channel sample"] | list[Float32[np.ndarray, " sample"]]:
    """Samples from -1 to 1, by channel."""
    if frame.format.name == "fltp":
        # Where they are: `to_ndarray` would copy them.
        return [np.frombuffer(memoryview(plane), np.float32, frame.samples) for plane in frame.planes]
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype.kind == "i":
        return array.astype(np.float32) / 2.0 ** (8 * array.dtype.itemsize - 1)
    return array.astype(np.float32, copy=False)
