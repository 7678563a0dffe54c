"""Settings of the benchmarks."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StreamsSettings:
    """What is measured, on what, how often.

    Attributes:
        tasks: which of in_order, random, training, with_sound, quality, wrong_frames, sync, workers and memory; all but
            memory (which `long` adds) if none is named.
        heights: rows of the footage; its columns are 16/9 of them.
        gops: distances between keyframes, in frames.
        seconds: length of every file.
        videos: real videos (folder, glob, file) of which the footage is made; synthetic footage if empty.
        folder: where footage is kept between runs.
        output: file of all numbers (JSON); beside the footage if empty.
        rounds: times that everything is measured; contenders take turns.
        round_seconds: CPU-seconds that our reader may take in one round of random clips.
        quick: one short file of 256 rows, two rounds: shows in a minute that all works, and measures nothing well.
        long: measures the memory of a worker after 20,000 and 200,000 clips too.
    """

    tasks: list[str] = field(default_factory=list)
    heights: list[int] = field(default_factory=lambda: [256, 480, 1080])
    gops: list[int] = field(default_factory=lambda: [12, 250])
    seconds: float = 30.0
    videos: str = ""
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    rounds: int = 5
    round_seconds: float = 1.0
    quick: bool = False
    long: bool = False


@dataclass(frozen=True)
class LatentsSettings:
    """What is measured of reading latent caches, on what, how often.

    Attributes:
        num_clips: clips of the caches, random codes.
        num_frames: frames of a clip.
        side: rows and columns of the finest scale of codes; there are half as many on the next, down to one.
        vocabulary: codes of every scale.
        thumbnail: rows and columns of the thumbnails.
        batch: clips of one batch.
        peers: which of memmap, zarr, npy, lmdb, mds, litdata and webdataset; those that are not installed are named and
            passed over.
        folder: where the caches are kept while they are measured; must be on the disk that is of interest.
        output: file of all numbers (JSON); latents_DATE.json in the folder above if empty.
        rounds: times that everything is measured; contenders take turns.
        round_seconds: CPU-seconds of every contender, task and round.
        cold_clips: clips read after the page cache was emptied of them.
        quick: few clips, two rounds: shows that all works, and measures nothing well.
    """

    num_clips: int = 1024
    num_frames: int = 40
    side: int = 8
    vocabulary: int = 1024
    thumbnail: int = 32
    batch: int = 64
    peers: list[str] = field(default_factory=lambda: ["memmap", "zarr", "npy", "lmdb", "mds", "litdata", "webdataset"])
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    rounds: int = 7
    round_seconds: float = 2.0
    cold_clips: int = 100
    quick: bool = False


@dataclass(frozen=True)
class TrainBenchSettings:
    """What is measured of training the world model, with random codes and weights.

    Attributes:
        codes: of a frame, as a pyramid of squares: 85 is 1 + 4 + 16 + 64, 341 has 256 more.
        patches: sides of the square of latents that is a token of the trunk.
        dim: channels of a token.
        depth: blocks of the trunk; the decoder has two.
        window_frames: that a frame of the trunk sees.
        num_frames: of a clip.
        batch: clips of a step.
        folder: of the file of all numbers.
        output: file of all numbers (JSON); train_DATE.json in the folder above if empty.
        rounds: times that everything is measured; contenders take turns.
        steps: of every contender in a round.
        compile: ours runs a second time as training.compile=true has it, where there is a compiler.
        bf16: all compute as training.precision=bf16 has it, beside the masked call in fp32.
        trace: file of a Chrome trace of one step of ours, with the first number of codes; empty for none.
        quick: 85 codes, two rounds of one step: shows that all works, and measures nothing well.
    """

    codes: list[int] = field(default_factory=lambda: [341])
    patches: list[int] = field(default_factory=lambda: [2, 1])
    dim: int = 192
    depth: int = 4
    window_frames: int = 8
    num_frames: int = 16
    batch: int = 1
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    rounds: int = 5
    steps: int = 2
    compile: bool = True
    bf16: bool = False
    trace: str = ""
    quick: bool = False


@dataclass(frozen=True)
class RolloutBenchSettings:
    """What is measured of rollouts of the world model, with random codes and weights.

    Attributes:
        codes: of a frame, as a pyramid of squares: 85 is 1 + 4 + 16 + 64, 341 has 256 more.
        dim: channels of a token.
        depth: blocks of the trunk; the decoder has two.
        window_frames: that a frame of the trunk sees.
        context_frames: of the prompt.
        horizon: frames that are imagined.
        late_frame: whose cost and memory are compared with those of frame 10.
        compile: ours runs a second time with compiled frames (worldmodel rollout --compile true), where there is a
            compiler.
        weights: ours runs again with the matrices of the blocks kept in each of these kinds.
        folder: of the file of all numbers.
        output: file of all numbers (JSON); rollout_DATE.json in the folder above if empty.
        rounds: times that everything is measured; contenders take turns.
        trace: file of a Chrome trace of one imagined frame of ours, with the first number of codes; empty for none.
        quick: 85 codes, two rounds of short rollouts: shows that all works, and measures nothing well.
    """

    codes: list[int] = field(default_factory=lambda: [85, 341])
    dim: int = 192
    depth: int = 4
    window_frames: int = 8
    context_frames: int = 16
    horizon: int = 16
    late_frame: int = 1000
    compile: bool = True
    weights: list[Literal["bf16", "int8", "fp8"]] = field(default_factory=lambda: ["bf16", "int8", "fp8"])
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    rounds: int = 5
    trace: str = ""
    quick: bool = False


@dataclass(frozen=True)
class DeviceBenchSettings:
    """What is measured of untrained world models on one device, a GPU as a rule, in elapsed time.

    Attributes:
        device: auto (a GPU if there is one), cpu or cuda.
        sizes: of models: names of files of configs/train, whose `model` they have.
        num_codes: of a picture, as a pyramid of squares: 341 is 1 + 4 + 16 + 64 + 256. Its pixels are 16 times as many
            a side as its finest codes (256 for 341); a frame of a rollout has 7 codes of sound beside them.
        num_frames: of a clip of training, and of the prompt of a rollout.
        batch: clips of a training step.
        rollout_batch: rollouts side by side, measured beside a single one.
        horizon: frames that a rollout imagines in a round.
        steps: of training, of every contender in a round.
        rounds: times that everything is measured; contenders take turns.
        precision: of matrix products; auto is bf16 on a GPU and fp32 elsewhere. In bf16 training has fp32
            weights.
        attention: of our training; auto is flex on a GPU and sdpa elsewhere. Rollouts, where a frame sees all that is
            kept, have sdpa; what ours is compared with has a dense mask.
        compile: our training runs a second time as training.compile=true has it, where there is a compiler, and a
            rollout a second time with compiled frames.
        weights: of rollouts, what the matrices of their blocks are kept in; auto is bf16 on a GPU and fp32 elsewhere.
        folder: of the file of all numbers.
        output: file of all numbers (JSON); device_DATE.json in the folder above if empty.
        trace: file of a Chrome trace of one training step of the first size, and, with _frame added to its name, of one
            imagined frame; empty for none.
        quick: one model of a single block, 21 codes, one round: shows that all works, and measures nothing well.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    sizes: list[str] = field(default_factory=lambda: ["medium", "large", "huge"])
    num_codes: int = 341
    num_frames: int = 16
    batch: int = 16
    rollout_batch: int = 32
    horizon: int = 16
    steps: int = 4
    rounds: int = 5
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "sdpa", "dense", "flex", "xformers"] = "auto"
    compile: bool = True
    weights: Literal["auto", "fp32", "bf16", "int8", "fp8"] = "auto"
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    trace: str = ""
    quick: bool = False


@dataclass(frozen=True)
class SizesSettings:
    """What is measured of world models of several sizes, trained on codes that move over the grid.

    Attributes:
        depths: values of model.depth; the models of the coordinate check are as wide, but all two blocks deep.
        learning_rates: each size is trained with each, to see whether the same one is best.
        optimizer: adamw, or muon, where the rates are those of muon and Adam has a fixed one.
        codes: of a frame, as a pyramid of squares: 21 is 1 + 4 + 16.
        num_frames: of a clip.
        batch: clips of a step.
        steps: of every training; the last quarter is what it is judged by.
        check_steps: after which the coordinate check looks at how far every layer has moved.
        seeds: of weights and data; the figures are means over them.
        folder: of the plot and the file of all numbers.
        output: file of all numbers (JSON); sizes_DATE.json in the folder above if empty.
        quick: two small sizes, few steps: shows that all works, and measures nothing well.
    """

    depths: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    learning_rates: list[float] = field(default_factory=lambda: [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2])
    optimizer: Literal["adamw", "muon"] = "adamw"
    codes: int = 21
    num_frames: int = 6
    batch: int = 4
    steps: int = 80
    check_steps: int = 5
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    folder: str = "~/.cache/worldmodel-bench"
    output: str = ""
    quick: bool = False
