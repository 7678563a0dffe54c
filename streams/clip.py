"""The only types that leave `streams`: frames with their times and sound, validated together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor


def to_float(frames: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Converts 0 to 255 into -1 to 1."""
    return frames.to(torch.float32) / 127.5 - 1.0


def to_uint8(frames: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Converts -1 to 1 into 0 to 255; the inverse of `to_float` on all 256 values, clamping outside."""
    return ((frames.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one video.

    Attributes:
        frames: red, green, blue from 0 to 255.
        seconds: presentation times on the run's fixed-rate grid, relative to the start of the video.
        sound: samples from -1 to 1, of one channel or with an axis of two; frame t owns those from its time on; None if
            the video has no sound.
        video: path of the file.

    Raises:
        ValueError: lengths disagree, or the times do not increase.
    """

    frames: UInt8[Tensor, "frame 3 height width"]
    seconds: Float64[Tensor, " frame_of_time"]
    sound: Float32[Tensor, "frame_of_sound *channel sample"] | None
    video: str

    def __post_init__(self) -> None:
        """Checks that frames, times and sound belong together."""
        num_frames = len(self.frames)
        if num_frames == 0 or len(self.seconds) != num_frames:
            raise ValueError(
                f"{self.video}: {num_frames} frames and {len(self.seconds)} times; as many, and one at least"
            )
        if self.sound is not None and len(self.sound) != num_frames:
            raise ValueError(f"{self.video}: {num_frames} frames and sound for {len(self.sound)}; as many are needed")
        seconds = self.seconds.numpy()
        if not (seconds[1:] > seconds[:-1]).all():
            raise ValueError(f"{self.video}: the times of a clip must increase, not {self.seconds.tolist()}")


@dataclass(frozen=True)
class Batch:
    """Clips stacked; sound is zero where a clip has none.

    Raises:
        ValueError: lengths disagree.
    """

    frames: UInt8[Tensor, "batch frame 3 height width"]
    seconds: Float64[Tensor, "batch frame"]
    sound: Float32[Tensor, "batch frame *channel sample"]
    has_sound: Bool[Tensor, " batch"]
    videos: list[str]

    def __post_init__(self) -> None:
        """Checks that all parts have the same clips and frames."""
        shape = self.frames.shape[:2]
        clips = len(self.has_sound), len(self.videos)
        if self.seconds.shape != shape or self.sound.shape[:2] != shape or clips != (shape[0], shape[0]):
            raise ValueError(
                f"the parts of a batch disagree: frames {tuple(shape)}, seconds {tuple(self.seconds.shape)}, "
                f"sound {tuple(self.sound.shape[:2])}, has_sound {clips[0]}, videos {clips[1]}"
            )

    @classmethod
    def stack(cls, clips: Sequence[Clip], samples_per_frame: int | None = None, sound_channels: int = 1) -> "Batch":
        """Stacks clips of equal shape.

        Args:
            clips: one at least.
            samples_per_frame: columns of the sound; those of the clips with sound if None, or else 0.
            sound_channels: channels of sound that has so many columns; above 1 they have an axis.

        Raises:
            ValueError: no clips, or clips of different shapes.
        """
        shapes = {tuple(clip.frames.shape) for clip in clips}
        heard = {tuple(clip.sound.shape[1:]) for clip in clips if clip.sound is not None}
        if samples_per_frame is not None:
            heard.add((samples_per_frame,) if sound_channels == 1 else (sound_channels, samples_per_frame))
        if len(shapes) != 1 or len(heard) > 1:
            raise ValueError(f"clips of one batch need one shape: frames {sorted(shapes)}, samples {sorted(heard)}")
        silence = torch.zeros(len(clips[0].frames), *(heard.pop() if heard else (0,)))
        return cls(
            frames=torch.stack([clip.frames for clip in clips]),
            seconds=torch.stack([clip.seconds for clip in clips]),
            sound=torch.stack([silence if clip.sound is None else clip.sound for clip in clips]),
            has_sound=torch.tensor([clip.sound is not None for clip in clips]),
            videos=[clip.video for clip in clips],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return self.over(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies to a GPU run in the background."""
        return self.over(lambda tensor: tensor.pin_memory())

    def over(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor changed."""
        return Batch(
            frames=change(self.frames),
            seconds=change(self.seconds),
            sound=change(self.sound),
            has_sound=change(self.has_sound),
            videos=self.videos,
        )
