"""Settings of every part, as frozen dataclasses. Nothing heavy is imported here, so `--help` is quick."""

from dataclasses import dataclass, field
from typing import Literal

from streams.settings import ClipSettings, LiveSettings, LoaderSettings, SelectionSettings


@dataclass(frozen=True)
class QuantizerSettings:
    """Multi-scale residual quantiser.

    Attributes:
        bit_price: what a bit of a code of the finest scale costs (in units of the frame's variance of latents over its
            places): a rare entry is taken only where it is better by that; 0 takes the nearest.
        kind: how the entries of a scale come about: vq learns each, fsq lays them out on a lattice of 3 to 8 levels an
            axis (vocabulary is their product), bsq on one of signs (vocabulary is a power of two).
        grids: (rows, columns) of every scale, coarse to fine; the last is the latent's own grid.
        vocabulary: entries in the codebook of each scale.
        dim: channels of a latent.
        decay: moving average of the codebook statistics per step.
        restart_below: entries whose moving count falls below this are restarted from the batch (vq).
        sticky_margin: how much worse (in units of the mean squared latent, in tokens_1d of the codebook's variance) the
            previous frame's code may be and still be kept; 0 switches stickiness off.
    """

    grids: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (4, 4), (8, 8))
    vocabulary: int = 512
    dim: int = 16
    decay: float = 0.98
    restart_below: float = 0.05
    sticky_margin: float = 0.05
    bit_price: float = 0.0
    kind: Literal["vq", "fsq", "bsq"] = "vq"


@dataclass(frozen=True)
class PictureCodecSettings:
    """Convolutional autoencoder of single frames around a multi-scale quantiser.

    Attributes:
        channels: of the finest convolutions; each halving of the grid doubles them.
        quantizer: of the latents.
        jpeg_quality: frames pass through JPEG of this quality (10 to 30, say) before they are encoded, so that no code
            is spent on what JPEG leaves out; the decoder still learns the frames as they were. 0 leaves them alone.
    """

    channels: int = 64
    quantizer: QuantizerSettings = field(default_factory=lambda: QuantizerSettings(sticky_margin=0.02, bit_price=0.03))
    jpeg_quality: int = 0


@dataclass(frozen=True)
class DctSettings:
    """JPEG's transform as a codec of pictures; nothing is trained.

    Attributes:
        block: side of a block in pixels.
        chroma: half as many rows and columns of colour (JPEG's 4:2:0), or full (4:4:4).
        qualities: of JPEG (1 to 100), coarse to fine: each refines what those before it left. With bits_per_frame, the
            lowest and the highest that a frame may be given.
        bands: at which zigzag frequency each scale stops, DC first; one more takes the rest.
        dc: what stands for the mean of a block: its difference to its left neighbour (as in JPEG), or its value.
        sticky_margin: how much worse (in squared steps of the quantiser) the previous frame's value may be and still be
            kept; 0 switches stickiness off.
        bits_per_frame: what a frame's codes should cost when JPEG writes them; its quality follows. 0 leaves it fixed.
    """

    block: Literal[4, 8, 16] = 8
    chroma: Literal["half", "full"] = "half"
    qualities: tuple[int, ...] = (20,)
    bands: tuple[int, ...] = (1, 6, 15)
    dc: Literal["difference", "value"] = "difference"
    sticky_margin: float = 0.5
    bits_per_frame: int = 0


@dataclass(frozen=True)
class HybridSettings:
    """Multi-scale quantiser over the whitened DCT coefficients of blocks.

    Attributes:
        block: side of a block in pixels; the finest grid has one place for each.
        luma_frequencies: coefficients of luma in a latent, in zigzag order; higher frequencies are left out.
        chroma_frequencies: the same of each of the two chromas.
        whitening: coefficients are divided by their standard deviation to this power: 1 makes all matter alike, 0 as
            much as they do in the picture, which rebuilt real videos best (24.5 dB; 23.8 with 0.5, 21.8 with 1).
        quantizer: of the latents; dim is luma_frequencies + 2 * chroma_frequencies.
    """

    block: Literal[4, 8, 16] = 8
    luma_frequencies: int = 10
    chroma_frequencies: int = 3
    whitening: float = 0.0
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)


@dataclass(frozen=True)
class TransformerSettings:
    """Width and depth of a transformer.

    Attributes:
        dim: channels of a token.
        depth: blocks of attention and feed-forward.
        num_heads: of the attention; dim is a multiple.
        attention: what computes it: sdpa is torch's, cut where that is faster; dense the same with one mask; flex is
            compiled by torch and trains on a GPU only; xformers needs a GPU.
    """

    dim: int = 192
    depth: int = 4
    num_heads: int = 6
    attention: Literal["sdpa", "dense", "flex", "xformers"] = "sdpa"


@dataclass(frozen=True)
class Tokens1dSettings:
    """Transformers that turn a frame into one row of learned tokens and back (a 1-D tokenizer: TiTok, FlexTok).

    Attributes:
        patch: side in pixels of the patches that the transformers read and paint.
        transformer: of the encoder, and of the decoder again.
        nested_dropout: share of the frames that are painted from a prefix of their tokens while training, which ends
            where a scale does; with 0, only whole rows can be decoded.
        quantizer: of the latents; grids are (1, tokens in all): every scale lengthens the row, and the last grid is all
            of it.
    """

    patch: int = 8
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    nested_dropout: float = 0.5
    quantizer: QuantizerSettings = field(
        default_factory=lambda: QuantizerSettings(grids=((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64)))
    )


@dataclass(frozen=True)
class PictureLossSettings:
    """What a picture codec is trained on beside PSNR and the commitment to its codes.

    Attributes:
        still_weight: of the movement of latents where the picture stands still, in units of the mean squared latent.
        sticky: train with codes that are sticky in time, as they will be used, and not with every frame's nearest.
        perceptual_weight: of the distance of VGG16's features; 0 needs no weights of it.
        perceptual_file: weights of VGG16 in torchvision's names, a .safetensors file.
        perceptual_sha256: hash of that file; another is refused.
        adversarial_weight: pull of a patch discriminator, in units of the picture's other losses' pull; 0 for none.
        adversarial_from: share of the run after which it begins.
        adversarial_channels: of the discriminator's first layer.
    """

    still_weight: float = 0.1
    sticky: bool = True
    perceptual_weight: float = 0.0
    perceptual_file: str | None = None
    perceptual_sha256: str | None = None
    adversarial_weight: float = 0.0
    adversarial_from: float = 0.5
    adversarial_channels: int = 32


@dataclass(frozen=True)
class SoundCodecSettings:
    """Autoencoder of one frame's slice of log-mel around a multi-scale quantiser.

    Attributes:
        channels: of the hidden layers.
        num_mels: mel bands.
        slices_per_frame: spectra in one frame's time.
        fft_samples: length of a spectrum's window.
        floor: mel magnitudes below this are silence; set it above the noise of the recording, or the codes (and the
            model) are busy with noise.
        quantizer: grids are (1, slices).
    """

    channels: int = 256
    num_mels: int = 48
    slices_per_frame: int = 8
    fft_samples: int = 512
    floor: float = 0.02
    quantizer: QuantizerSettings = field(
        default_factory=lambda: QuantizerSettings(grids=((1, 1), (1, 2), (1, 4)), vocabulary=256, dim=16)
    )


@dataclass(frozen=True)
class ModelSettings:
    """The world model.

    Attributes:
        trunk: the causal transformer over frames.
        decoder: the coarse-to-fine transformer inside a frame.
        window_frames: frames (its own included) that a frame of the trunk attends to.
        patch: side of the square of latents that make one token of the trunk; of latents in a row, their number.
        decoded_frames: frames per clip whose codes are predicted in one step, drawn at random; 0 means all.
        copy_bias: start of the copy path's gate, added to the logit of the previous frame's code.
        guess_weight: weight of the squared error of the guessed latents beside the codes' cross-entropy.
        own_context: share of the clips in which the frames to go on from are the model's own, each imagined from the
            true frames before it, so that it learns to go on from its own mistakes.
        own_context_from: share of the run after which that begins; until then it costs nothing.
        context_noise: largest share of a frame's codes that are corrupted in the context while training, so that a
            rollout drifts less; 0 corrupts none.
        drop_past: share of the clips whose next frames are predicted from the last frame alone while training, as
            sampling.guidance will need it.
    """

    trunk: TransformerSettings = field(default_factory=TransformerSettings)
    decoder: TransformerSettings = field(default_factory=lambda: TransformerSettings(depth=2))
    window_frames: int = 8
    patch: int = 2
    decoded_frames: int = 4
    copy_bias: float = 4.0
    guess_weight: float = 0.5
    own_context: float = 0.0
    own_context_from: float = 0.6
    context_noise: float = 0.0
    drop_past: float = 0.0


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are drawn. Every list holds one value for all scales, or one per scale (picture, then sound).

    Attributes:
        temperature: divides the logits; 0 takes the most likely code.
        top_k: keep the k most likely codes; 0 keeps all.
        top_p: keep the most likely codes whose probabilities just reach p (Holtzman et al. 2020); 1 keeps all.
        moved_scales: how many of the picture's finest scales move together instead of being drawn: each place keeps its
            code or takes the mean of the others (see `move_codes`); codes drawn apart would tear shapes. 0 draws all.
        min_p: keep the codes at least this share as probable as the most likely one (Nguyen et al. 2024); 0 keeps all.
        guidance: how strongly the past counts: above 1 logits are pulled away from those of a model that sees the last
            frame alone, at twice the decoder's cost; 1 is none. Train with model.drop_past above 0 for it.
        preview_scales: decode this many of the coarsest scales and keep the others, and the sound, as they were in the
            previous frame: the gist at a part of the cost; 0 decodes all.
    """

    temperature: list[float] = field(default_factory=lambda: [1.0])
    top_k: list[int] = field(default_factory=lambda: [0])
    top_p: list[float] = field(default_factory=lambda: [1.0])
    moved_scales: int = 3
    min_p: list[float] = field(default_factory=lambda: [0.0])
    guidance: float = 1.0
    preview_scales: int = 0


@dataclass(frozen=True)
class HeadSettings:
    """Weights of the auxiliary losses (0 switches a head off).

    Attributes:
        flow: optical flow.
        speed: playback speed.
        arrow_of_time: direction of time.
        correspondence: of sound and picture.
        view_share: share of a batch of which reversed and hurried views are read.
        mismatched_share: share of a batch's clips with sound that are also read with another's.
    """

    flow: float = 0.5
    speed: float = 0.1
    arrow_of_time: float = 0.1
    correspondence: float = 0.1
    view_share: float = 0.25
    mismatched_share: float = 0.5


@dataclass(frozen=True)
class TrainingSettings:
    """The loop that every objective shares.

    Attributes:
        steps: optimizer updates in the whole run.
        optimizer: adamw, or muon for the transformers' hidden matrices and Adam for the rest.
        learning_rate: peak of the schedule (linear warm-up, then cosine to a tenth), of AdamW and Adam.
        muon_learning_rate: the same for Muon, whose steps have their own unit: the spectral norm of the update.
        warmup_steps: steps of the warm-up.
        weight_decay: on matrices only, times the learning rate of their optimizer.
        clip_norm: largest gradient norm with adamw, 0 for no bound; with muon nothing is clipped.
        precision: bf16 computes matrix products in bfloat16 with fp32 weights; auto takes it where it is fast.
        zero_stage: DeepSpeed ZeRO stage.
        accumulate: micro-batches that a batch is cut into, one after another on each device; their gradients are
            averaged. For a loss that is a mean over equal clips nothing changes but the memory that a step needs.
        recompute_activations: keep only what enters a transformer's block, and run it again in the backward pass.
        offload: what lies in the host's memory instead of the device's: the optimizer with its state (from ZeRO
            stage 1 on), and also the parameters (stage 3).
        spike_factor: an update whose loss or gradient norm is above so many times the median of the latest 64 is left
            out and counted (with adamw; not before 16 are known); 0 for none.
        hang_seconds: an update that takes longer ends the process with the stacks of all its threads; 0 for never.
        seed: of weights, order of data and every draw.
        report_every: steps between two reports of scalars.
        preview_every: steps between two reports of pictures, film strips, videos and sound.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: newest checkpoints that are kept.
    """

    steps: int = 1000
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    zero_stage: Literal[0, 1, 2, 3] = 1
    accumulate: int = 1
    recompute_activations: bool = False
    offload: Literal["none", "optimizer", "parameters"] = "none"
    spike_factor: float = 0.0
    hang_seconds: float = 600.0
    seed: int = 0
    report_every: int = 20
    preview_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2


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


@dataclass(frozen=True)
class RolloutSettings:
    """`worldmodel rollout`: imagine how a video goes on.

    Attributes:
        run: folder of a trained world model.
        out: the mp4 to write; a film strip (.png) and the codes (.codes.safetensors) are written beside it.
        prompt: video whose first frames are the context; beside `continue_from`, it is what the rollout is compared to.
        continue_from: codes of an earlier rollout that go on, without decoding and encoding them again.
        horizon: frames to imagine.
        context_frames: frames of the prompt that the model sees.
        start_seconds: where the context begins in the prompt.
        num_rollouts: drawn side by side from one reading of the prompt.
        seed: of the draws; without one it is 0, and a rollout that is continued goes on drawing where it stopped.
        device: auto takes a GPU if there is one; cpu, cuda or cuda:1 name it.
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
    """

    run: str
    cache: str | None = None
    context_frames: int = 8
    horizon: int = 16
    num_clips: int = 144
    seed: int = 0
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


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
class DemoSettings:
    """`worldmodel demo`: physics world, codecs, cache, training, rollout, table.

    Attributes:
        folder: where everything goes; a demo that was stopped goes on there.
        quick: the same path with far fewer steps, and no promise of quality.
    """

    folder: str = "demo"
    quick: bool = False
