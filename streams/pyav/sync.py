"""How the sound of a file stands to its pictures."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.stream import Disposition
from jaxtyping import Float64, Int64

from streams.addresses import Address
from streams.errors import MediaError
from streams.pyav.container import media_errors
from streams.pyav.index import index_frames
from streams.pyav.mixing import Mixer
from streams.pyav.placing import GAP_SECONDS
from streams.pyav.soundtrack import SoundTrack

# Sound that is never louder than this counts as silent.
SILENT_DB = -50.0


@dataclass(frozen=True)
class Sync:
    """Sound and pictures of one file, as their presentation times have it.

    All times are on the clock of the container, which may round them (to a millisecond in Matroska, WebM, FLV and ASF).

    Attributes:
        codec: FFmpeg's name of the sound's codec.
        sample_hz: rate of the track.
        num_channels: channels of the track.
        start_seconds: time of the first sample after priming, since the container's start.
        offset_seconds: the same since the first frame: above 0 the sound begins later; None without pictures.
        sound_seconds: samples of the track over its rate, gaps not counted.
        picture_seconds: from the first frame to the end of the last; None without pictures.
        short_seconds: how much earlier the sound ends than the pictures; below 0 it goes on after them; None without
            pictures.
        drift_seconds: what the presentation times gain on the samples over the whole track, gaps not counted: the slope
            of the straight line through both. Above 0 the samples are too few for their time, and must be stretched.
        gap_seconds: silence between samples, where the times jump ahead by more than 15 ms.
        overlap_seconds: the same where they jump back, and later sound takes the place of earlier.
        priming_samples: samples before the first, which the codec needs and the container says to leave out.
        peak_db: loudest sample in dB below full scale, mixed to stereo; minus infinity for digital silence.
    """

    codec: str
    sample_hz: int
    num_channels: int
    start_seconds: float
    offset_seconds: float | None
    sound_seconds: float
    picture_seconds: float | None
    short_seconds: float | None
    drift_seconds: float
    gap_seconds: float
    overlap_seconds: float
    priming_samples: int
    peak_db: float

    @property
    def silent(self) -> bool:
        """Whether nothing can be heard."""
        return self.peak_db < SILENT_DB

    @property
    def drift(self) -> float:
        """Seconds gained in a second of sound, as `SoundReader` takes it."""
        return self.drift_seconds / self.sound_seconds if self.sound_seconds else 0.0


def measure_sync(path: Address) -> Sync | None:
    """Decodes all of the sound of a file, and reads the times of its frames; None if it has no sound track.

    Raises:
        MediaError: the sound cannot be decoded, or the pictures have no times.
    """
    with media_errors(path):
        track = SoundTrack(path)
        try:
            return measure_track(track, path)
        finally:
            track.close()


def measure_track(track: SoundTrack, path: Address) -> Sync | None:
    """Measures the open file."""
    if track.track is None or track.container is None:
        return None
    pictures = [one for one in track.container.streams.video if not one.disposition & Disposition.attached_pic]
    times, lengths, mixer, peak = decode_all(track)
    if mixer is None:
        raise MediaError(f"{path}: its sound track is empty; leave the sound out or write the file anew with ffmpeg")
    hz = mixer.hz
    jumps = jumps_of(times, lengths / hz)
    start, stop = float(times.min()), float((times + lengths / hz).max())
    shown = index_frames(path).seconds if pictures else None
    end = None if shown is None else float(shown[-1] + (np.median(np.diff(shown)) if len(shown) > 1 else 0.0))
    return Sync(
        codec=track.codec,
        sample_hz=hz,
        num_channels=mixer.layout.nb_channels,
        start_seconds=start,
        offset_seconds=None if shown is None else start - float(shown[0]),
        sound_seconds=float(lengths.sum() / hz),
        picture_seconds=None if shown is None or end is None else end - float(shown[0]),
        short_seconds=None if end is None else end - stop,
        drift_seconds=drift_of(times, lengths / hz),
        gap_seconds=float(jumps[jumps > 0].sum()),
        overlap_seconds=float(-jumps[jumps < 0].sum()),
        priming_samples=track.priming_samples,
        peak_db=20 * float(np.log10(peak)) if peak else -float("inf"),
    )


def decode_all(
    track: SoundTrack,
) -> tuple[Float64[np.ndarray, " frame"], Int64[np.ndarray, " frame"], Mixer | None, float]:
    """Seconds since the container's start and length in samples of every frame of sound, and the loudest sample."""
    times: list[Fraction] = []
    lengths: list[int] = []
    mixer, waiting, peak = None, 0, 0.0
    for frame in track.from_start():
        if not frame.samples or (frame.pts is None and not times):
            continue
        mixer = mixer or Mixer(frame, 2)
        if frame.pts is None:  # packets of several frames tell the time of the first
            times.append(times[-1] + Fraction(lengths[-1], mixer.hz))
        else:
            times.append(frame.pts * (frame.time_base or Fraction(1, mixer.hz)) - track.start_seconds)
        lengths.append(mixer.write(frame))
        waiting += lengths[-1]
        if waiting > mixer.hz:
            peak, waiting = max(peak, float(np.abs(mixer.take()).max())), 0
    if mixer is not None and waiting:
        peak = max(peak, float(np.abs(mixer.take()).max()))
    return np.array([float(time) for time in times]), np.array(lengths, dtype=np.int64), mixer, peak


def jumps_of(
    times: Float64[np.ndarray, " frame"], lengths_seconds: Float64[np.ndarray, " frame"]
) -> Float64[np.ndarray, " pair"]:
    """What is between each frame of sound and the next: silence, or, negative, an overlap; 0 for less than a gap."""
    late = np.diff(times) - lengths_seconds[:-1]
    return np.where(np.abs(late) > GAP_SECONDS, late, 0.0)


def drift_of(times: Float64[np.ndarray, " frame"], lengths_seconds: Float64[np.ndarray, " frame"]) -> float:
    """What times gain on lengths from first to last, jumps left out: the slope of the line through their difference."""
    counted = np.concatenate([[0.0], np.cumsum(lengths_seconds)])
    if len(times) < 3 or not counted[-1]:
        return 0.0
    steady = times - np.concatenate([[0.0], np.cumsum(jumps_of(times, lengths_seconds))])
    slope = np.polyfit(counted[:-1], steady - counted[:-1], 1)[0]
    return float(slope * counted[-1])
