"""Settings of everything that leaves `streams`: how videos are examined, and clips sampled from them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ClipSettings:
    """How a video is read as clips.

    Attributes:
        frames_per_second: rate at which time is sampled, whatever the rate of the file.
        height: rows of a frame after resizing (the shorter side is fitted, the rest cropped at the centre).
        width: columns of a frame after resizing.
        num_frames: frames in one clip.
        sample_hz: rate of the sound, mono.
        reader: library that decodes pictures.
    """

    frames_per_second: float = 10.0
    height: int = 64
    width: int = 64
    num_frames: int = 16
    sample_hz: int = 16000
    reader: Literal["pyav", "decord"] = "pyav"

    @property
    def samples_per_frame(self) -> int:
        """Samples of sound that one frame owns."""
        return round(self.sample_hz / self.frames_per_second)


@dataclass(frozen=True)
class LoaderSettings:
    """How items become batches.

    Attributes:
        batch_size: items in one optimizer update, over all processes.
        num_workers: worker processes that prefetch, in every process; 0 reads in the training process.
        prefetch_batches: batches that each worker keeps ready.
        timeout_seconds: longest wait for a worker before an error is raised.
        num_turns: batches from one clip of a block (clips that follow each other in one video, read at once) to its
            next. More of them mix better, serve more workers (as many as divide it) and keep more clips in memory.
        max_failed_share: share of the clips read so far that may fail before the run stops.
        worker_memory_mebibytes: memory of its own at which a worker, and all others with it, is replaced by a new one.
    """

    batch_size: int = 8
    num_workers: int = 1
    prefetch_batches: int = 4
    timeout_seconds: float = 120.0
    num_turns: int = 12
    max_failed_share: float = 0.1
    worker_memory_mebibytes: int = 2048


@dataclass(frozen=True)
class ScanSettings:
    """How files are examined: limits that a good file keeps within, and how the data are split.

    Attributes:
        seconds_limit: time that one file may take, whatever its size.
        seconds_per_megabyte: time on top of that for every million bytes.
        memory_limit_bytes: memory that one process may take.
        max_pixels: most pixels of one frame.
        max_frames_per_second: highest rate of frames.
        max_file_bytes: largest file; 0 for any size.
        min_decoded_share: least share of its frames that must decode, before the first damage.
        timeout_seconds: longest silence of a web server.
        cut_threshold: change between two frames, in percent, that begins another scene (FFmpeg's scdet).
        validation_share: share of the files, by the hash of their content, kept for validation.
        test_share: share of the files, by the hash of their content, kept for testing.
    """

    seconds_limit: float = 60.0
    seconds_per_megabyte: float = 5.0
    memory_limit_bytes: int = 2 << 30
    max_pixels: int = 8192 * 4320
    max_frames_per_second: float = 1000.0
    max_file_bytes: int = 0
    min_decoded_share: float = 0.5
    timeout_seconds: float = 30.0
    cut_threshold: float = 10.0
    validation_share: float = 0.05
    test_share: float = 0.05


@dataclass(frozen=True)
class EncoderSettings:
    """How a video is written as H.264.

    Attributes:
        crf: x264's constant rate factor; 0 is lossless, 51 the worst.
        gop_frames: longest distance between two keyframes.
        num_b_frames: B-frames between two others.
        preset: x264's trade of time for size.
        sound_bits_per_second: rate of the AAC track.
    """

    crf: int = 20
    gop_frames: int = 12
    num_b_frames: int = 2
    preset: str = "veryfast"
    sound_bits_per_second: int = 64000


@dataclass(frozen=True)
class PhysicsSettings:
    """The physics world: discs under gravity in a box, that bounce, lose energy and ring when they hit something.

    Attributes:
        height: rows of a frame.
        width: columns of a frame.
        frames_per_second: rate of the file.
        seconds: length of a video.
        sample_hz: rate of the sound, mono.
        min_discs: fewest discs in a video.
        max_discs: most discs in a video.
        min_radius: smallest radius, as a share of the box's height.
        max_radius: largest radius, as a share of the box's height.
        fall_seconds: time of a fall from rest over the box's height; sets gravity.
        start_speed: largest speed along each axis at the start, as a share of the speed after such a fall.
        min_restitution: smallest share of its speed that a disc keeps in an impact with a wall.
        max_restitution: largest share of its speed that a disc keeps in an impact with a wall.
        pair_restitution: share of their closing speed that two discs keep when they hit each other.
        drag_hz: share of the speed lost per second in flight.
        noise: standard deviation of the sound's noise floor, the same in every video.
        num_looks: looks that all videos share, each drawing one of them; 0 gives every video its own.
        look: number of the look; another value gives the same motion another palette and background.
    """

    height: int = 64
    width: int = 64
    frames_per_second: float = 20.0
    seconds: float = 4.0
    sample_hz: int = 16000
    min_discs: int = 1
    max_discs: int = 3
    min_radius: float = 0.11
    max_radius: float = 0.17
    fall_seconds: float = 0.9
    start_speed: float = 0.9
    min_restitution: float = 0.75
    max_restitution: float = 0.9
    pair_restitution: float = 0.95
    drag_hz: float = 0.1
    noise: float = 0.003
    num_looks: int = 0
    look: int = 0

    @property
    def num_frames(self) -> int:
        """Frames of a video."""
        return round(self.seconds * self.frames_per_second)
