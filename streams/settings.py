"""Settings of everything that leaves `streams`: how videos are examined, and clips sampled from them."""

from dataclasses import dataclass, field
from typing import Literal

Library = Literal["pyav", "decord", "torchcodec"]
ReaderName = Literal["auto", Library]


@dataclass(frozen=True)
class ClipSettings:
    """How a video is read as clips.

    Attributes:
        frames_per_second: rate at which time is sampled, whatever the rate of the file.
        height: rows of a frame after resizing (the shorter side is fitted, the rest cropped at the centre).
        width: columns of a frame after resizing.
        num_frames: frames in one clip.
        sample_hz: rate of the sound.
        reader: library that decodes pictures; "auto" takes PyAV, and another where PyAV refuses a file that is whole.
        sound_channels: 1 for mono, 2 for stereo; codecs take mono.
    """

    frames_per_second: float = 10.0
    height: int = 64
    width: int = 64
    num_frames: int = 16
    sample_hz: int = 16000
    reader: ReaderName = "auto"
    sound_channels: Literal[1, 2] = 1

    @property
    def samples_per_frame(self) -> int:
        """Samples of sound that one frame owns."""
        return round(self.sample_hz / self.frames_per_second)


@dataclass(frozen=True)
class SelectionSettings:
    """Which clips of the videos are read.

    Attributes:
        strategy: spread takes evenly spaced clips, as few as cover every video; per_video takes as many of every video,
            however long it is; sliding takes one at every stride_frames; scenes is spread inside every scene, so that
            no clip reaches over a cut (the videos must be a manifest of a scan, which looks for cuts).
        stride_frames: frames from one clip's start to the next one's, with sliding.
        clips_per_video: clips of every video in an epoch, with per_video.
        block_clips: clips that follow each other in a video and are read in one pass; training is given them apart.
    """

    strategy: Literal["spread", "per_video", "sliding", "scenes"] = "spread"
    stride_frames: int = 1
    clips_per_video: int = 1
    block_clips: int = 4


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
        readers: libraries among which that of each file is chosen: right on frames at random, and the fastest.
        fall_back: try the other libraries where none of these is right.
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
    readers: tuple[Library, ...] = ("pyav",)
    fall_back: bool = True
    validation_share: float = 0.05
    test_share: float = 0.05


@dataclass(frozen=True)
class LiveSettings:
    """How a camera, a pipe, a network stream or a file at real-time pace is watched.

    Attributes:
        buffer_seconds: footage that is kept for a slow consumer; beyond it the oldest frames are dropped, and counted.
        timeout_seconds: longest wait for a connection, and for more data.
        num_reconnects: attempts in a row to connect again where a network source breaks off or goes silent.
        backoff_seconds: wait before the first of them; each further one is twice as long, up to 30 seconds.
        endless: connect again also where a network source ends in good order, as some cameras do when they restart.
        gap_seconds: pictures further apart than this begin a new clip; until then the one before stays.
        sound_lag_seconds: footage for which a picture waits for its sound; then it is silent, and counted.
        probe_seconds: most footage that is looked at before the first frame, to learn what is in it.
        speed: pace of a file, 1 is real time; everything else comes at its own pace.
        format: FFmpeg's name of the format, for sources that do not show it; empty to find it out.
        options: further options of FFmpeg for the source, as {"rtsp_transport": "udp"}, or {"video_size": "640x480",
            "framerate": "30", "input_format": "mjpeg"} for a camera.
    """

    buffer_seconds: float = 4.0
    timeout_seconds: float = 10.0
    num_reconnects: int = 5
    backoff_seconds: float = 0.5
    endless: bool = False
    gap_seconds: float = 1.0
    sound_lag_seconds: float = 2.0
    probe_seconds: float = 2.0
    speed: float = 1.0
    format: str = ""
    options: dict[str, str] = field(default_factory=dict)


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
