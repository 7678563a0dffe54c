"""What the commands of `worldmodel` are given."""

from dataclasses import dataclass, field
from typing import Literal

from streams.settings import ClipSettings, LiveSettings, LoaderSettings, SelectionSettings
from worldmodel.settings.codecs import (
    DctSettings,
    HybridSettings,
    PictureCodecSettings,
    PictureLossSettings,
    SoundCodecSettings,
    Tokens1dSettings,
)
from worldmodel.settings.model import HeadSettings, ModelSettings, SamplingSettings, TrainingSettings

# What the matrices of a trained model's blocks are kept in.
Weights = Literal["fp32", "bf16", "int8", "fp8"]


@dataclass(frozen=True)
class TokenizerSettings:
    """`worldmodel tokenizer`: make one codec from a folder of videos.

    Attributes:
        videos: folder of videos, one video, a glob or a manifest; or several of them with weights, of which each is
            read that share of the time, as {"robots": 3, "internet": 1}.
        run: folder of the run, made by the command.
        kind: what the codec encodes.
        selection: which clips of the videos it is trained on.
        family: how a codec of pictures does it: vq is a learned autoencoder around a quantiser; dct is JPEG's
            transform, written without training; hybrid is a quantiser over DCT coefficients; tokens_1d is a row of
            learned tokens, each of the whole frame, of which any prefix decodes. Sound has vq alone.
        picture_loss: what a picture codec is trained on.
        zoom: pictures are read so many times as large as a clip, and a part of them, of any size down to that of a
            clip, is cut out at random and mirrored half the time; 1 leaves them whole. A codec of few videos learns
            from it what other videos look like. Nothing of it is left in the codec.
    """

    videos: str | dict[str, float]
    run: str
    kind: Literal["picture", "sound"] = "picture"
    clips: ClipSettings = field(default_factory=lambda: ClipSettings(num_frames=4))
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    picture: PictureCodecSettings = field(default_factory=PictureCodecSettings)
    sound: SoundCodecSettings = field(default_factory=SoundCodecSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    family: Literal["vq", "dct", "hybrid", "tokens_1d"] = "vq"
    dct: DctSettings = field(default_factory=DctSettings)
    hybrid: HybridSettings = field(default_factory=HybridSettings)
    tokens_1d: Tokens1dSettings = field(default_factory=Tokens1dSettings)
    picture_loss: PictureLossSettings = field(default_factory=PictureLossSettings)
    zoom: float = 1.0

    @property
    def codec(self) -> PictureCodecSettings | DctSettings | HybridSettings | Tokens1dSettings | SoundCodecSettings:
        """Settings of the codec that kind and family name."""
        if self.kind == "sound":
            return self.sound
        families = {"vq": self.picture, "dct": self.dct, "hybrid": self.hybrid, "tokens_1d": self.tokens_1d}
        return families[self.family]


@dataclass(frozen=True)
class EncodingSettings:
    """How videos become codes while a world model trains on them; a cache was encoded before, and these are not read.

    With the values that a cache was built with, the codes are those of the cache.

    Attributes:
        clip_frames: frames of the clips that are encoded whole, from which the training clips are cut.
        heldout: share of the videos kept for evaluation, chosen by the hash of their content.
        thumbnail: shorter side of the thumbnails.
        chunk_clips: clips encoded at a time; fewer need less memory.
    """

    clip_frames: int = 40
    heldout: float = 0.1
    thumbnail: int = 32
    chunk_clips: int = 32


@dataclass(frozen=True)
class TrainSettings:
    """`worldmodel train`: train the world model from a latent cache, or straight from videos.

    Attributes:
        codecs: runs of the picture codec and (optionally) the sound codec; a cache must have been written by these.
        run: folder of the run, made by the command.
        cache: latent cache written by `python -m tools.latents build`; give this or videos.
        videos: folder of videos, one video, a glob or a manifest, whose codes are made while training; or several of
            them with weights, as {"robots": 3, "internet": 1}; give this or cache.
        num_frames: frames of one training clip.
        dry_run: train nothing and write nothing; make a few steps, and print what the training would need.
    """

    codecs: list[str]
    run: str
    cache: str | None = None
    videos: str | dict[str, float] | None = None
    num_frames: int = 16
    encoding: EncodingSettings = field(default_factory=EncodingSettings)
    loader: LoaderSettings = field(default_factory=lambda: LoaderSettings(batch_size=16))
    model: ModelSettings = field(default_factory=ModelSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    dry_run: bool = False


@dataclass(frozen=True)
class RolloutSettings:
    """`worldmodel rollout`: imagine how a video goes on.

    Attributes:
        run: folder of a trained world model.
        out: the mp4 to write; a film strip (.png) and the codes (.codes.safetensors) are written beside it. A - pipes
            the video alone (MPEG-TS) to stdout while it goes on: `--out - | ffplay -`.
        prompt: video whose first frames are the context; beside `continue_from`, it is what the rollout is compared to.
        continue_from: codes of an earlier rollout that go on, without decoding and encoding them again.
        horizon: frames to imagine.
        context_frames: frames of the prompt that the model sees.
        start_seconds: where the context begins in the prompt.
        num_rollouts: drawn side by side from one reading of the prompt.
        seed: of the draws; without one it is 0, and a rollout that is continued goes on drawing where it stopped.
        device: auto takes a GPU if there is one; cpu, cuda or cuda:1 name it.
        compile: when the window is full, make code of a whole frame, and run that from then on. It is made in one
            to three minutes and kept for later, in seconds then; small models go on faster.
        cuda_graph: when the window is full, record a frame as a CUDA graph, and repeat that; needs a GPU.
        weights: what the matrices of the transformers' blocks are kept in: fp32 as they were trained; bf16 needs half
            of the memory, int8 and fp8 a quarter, and all three compute in bfloat16.
        sampling: how codes are drawn.
    """

    run: str
    out: str
    prompt: str | None = None
    continue_from: str | None = None
    horizon: int = 32
    context_frames: int = 8
    start_seconds: float = 0.0
    num_rollouts: int = 1
    seed: int | None = None
    device: str = "auto"
    compile: bool = False
    cuda_graph: bool = False
    weights: Weights = "fp32"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True)
class EvaluateSettings:
    """`worldmodel evaluate`: measure a run on the videos held out of its training.

    Attributes:
        run: folder of a trained world model.
        cache: latent cache with held-out videos; if not given, the run's own, or else the videos it was trained on.
        context_frames: frames that a rollout sees.
        horizon: frames that a rollout imagines.
        num_clips: most clips that are measured.
        seed: of the draws and of the bootstrap.
        sampling: how codes are drawn.
        device: auto takes a GPU if there is one; cpu, cuda or cuda:1 name it.
        weights: what the matrices of the transformers' blocks are kept in, as for a rollout: fp32, bf16, int8 or fp8;
            beside the table of fp32 it tells what is lost.
    """

    run: str
    cache: str | None = None
    context_frames: int = 8
    horizon: int = 16
    num_clips: int = 144
    seed: int = 0
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    device: str = "auto"
    weights: Weights = "fp32"


@dataclass(frozen=True)
class EvaluateCodecSettings:
    """`worldmodel evaluate codec`: measure codecs on the same held-out frames, beside JPEG and H.264.

    Attributes:
        runs: folders of trained codecs, of pictures or of sound.
        videos: folder of videos, one video, a glob or a manifest, that no codec was trained on.
        out: folder for codecs.json and the pictures; beside the first run if not given.
        num_clips: most clips that are measured, spread over the videos.
        num_frames: frames of a clip.
        device: auto takes a GPU if there is one; cpu, cuda or cuda:1 name it.
        seed: of the bootstrap.
    """

    runs: list[str]
    videos: str
    out: str | None = None
    num_clips: int = 64
    num_frames: int = 16
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class WatchSettings:
    """`worldmodel watch`: a trained model watches a live source; how many bits each new frame costs it is its surprise.

    Attributes:
        run: folder of a trained world model.
        address: /dev/video0, pipe:0 (or -, or a FIFO), rtsp://, http(s)://, tcp://, udp://, rtmp://, or a file.
        out: folder for surprise.csv and surprise.png; watch in the run's folder if not given.
        seconds: footage after which it ends; 0 watches until the source ends or Ctrl-C.
        device: auto takes a GPU if there is one; cpu, cuda or cuda:1 name it.
        live: how the source is watched; a model that is too slow is behind by the buffer's length.
    """

    run: str
    address: str
    out: str | None = None
    seconds: float = 0.0
    device: str = "auto"
    live: LiveSettings = field(default_factory=lambda: LiveSettings(buffer_seconds=1.0))


@dataclass(frozen=True)
class DoctorSettings:
    """`worldmodel doctor`: check the machines of a training before it, in every process that a launcher starts.

    Attributes:
        folder: where runs and caches are to be kept, on a file system that all machines see.
        json: file for the findings, for machines.
        timeout_seconds: longest that the processes wait for each other, and that one check may take.
        disk_gibibytes: least free space of the folder.
        gigabytes_per_second: least rate of an all-reduce.
        clips: that the loaders will read, which with `loader` says how much of /dev/shm they need.
        loader: of the training.
    """

    folder: str = "."
    json: str | None = None
    timeout_seconds: float = 60.0
    disk_gibibytes: float = 10.0
    gigabytes_per_second: float = 0.1
    clips: ClipSettings = field(default_factory=ClipSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)


@dataclass(frozen=True)
class DemoSettings:
    """`worldmodel demo`: physics world, codecs, cache, training, rollout, table.

    Attributes:
        folder: where everything goes; a demo that was stopped goes on there.
        quick: the same path with far fewer steps, and no promise of quality.
    """

    folder: str = "demo"
    quick: bool = False
