"""The world model, how it is trained and how it is drawn from."""

from dataclasses import dataclass, field, replace
from typing import Literal

# Channels of the trunk that a block of it brings along where one dial sets the size; as many make an attention head.
DIM_PER_BLOCK = 64


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
class ModelSettings:
    """The world model.

    Attributes:
        trunk: the causal transformer over frames.
        decoder: the coarse-to-fine transformer inside a frame.
        window_frames: frames (its own included) that a frame of the trunk attends to.
        factorised: the trunk's blocks attend in turn over the places of a frame and over the times of a place, instead
            of over all tokens of the window at once.
        patch: side of the square of latents that make one token of the trunk; of latents in a row, their number.
        decoded_frames: frames per clip whose codes are predicted in one step, drawn at random; 0 means all.
        copy_bias: start of the copy path's gate, added to the logit of the previous frame's code.
        guess_weight: weight of the squared error of the guessed latents beside the codes' cross-entropy.
        z_weight: weight of the square of the logarithm of what the softmax divides by, which keeps logits from growing
            (z-loss: Chowdhery et al. 2022, "PaLM"); 1e-4 is theirs, 0 leaves it out.
        own_context: share of the clips in which the frames to go on from are the model's own, each imagined from the
            true frames before it, so that it learns to go on from its own mistakes.
        own_context_from: share of the run after which that begins; until then it costs nothing.
        context_noise: largest share of a frame's codes that are corrupted in the context while training, so that a
            rollout drifts less; 0 corrupts none.
        drop_past: share of the clips whose next frames are predicted from the last frame alone while training, as
            sampling.guidance will need it.
        depth: one dial for the size: a trunk of so many blocks, 64 channels wide for each, and half as many blocks in
            the decoder. 4, 8, 16 and 26 make about 8M, 45M, 320M and 1.3B parameters; 0 leaves trunk and decoder as
            they are given.
    """

    trunk: TransformerSettings = field(default_factory=TransformerSettings)
    decoder: TransformerSettings = field(default_factory=lambda: TransformerSettings(depth=2))
    window_frames: int = 8
    factorised: bool = False
    patch: int = 2
    decoded_frames: int = 4
    copy_bias: float = 4.0
    guess_weight: float = 0.5
    own_context: float = 0.0
    own_context_from: float = 0.6
    context_noise: float = 0.0
    drop_past: float = 0.0
    depth: int = 0
    z_weight: float = 0.0

    def sized(self) -> "ModelSettings":
        """The same with trunk and decoder of the size that depth stands for.

        Raises:
            ValueError: depth is negative, or sizes are given beside it.
        """
        if self.depth == 0:
            return self
        if self.depth < 0:
            raise ValueError(f"model.depth={self.depth}: give 1 or more, or 0 for the sizes of trunk and decoder")
        dim = DIM_PER_BLOCK * self.depth
        depths = {"trunk": self.depth, "decoder": -(-self.depth // 2)}
        sizes = {}
        for name, depth in depths.items():
            given: TransformerSettings = getattr(self, name)
            sizes[name] = TransformerSettings(dim, depth, num_heads=self.depth, attention=given.attention)
            default = type(self).__dataclass_fields__[name].default_factory()
            if replace(given, attention=default.attention) not in (default, replace(sizes[name], attention="sdpa")):
                raise ValueError(
                    f"model.depth={self.depth} makes model.{name} {dim} wide and {depth} deep, but its size is given "
                    f"too ({given}): leave out one of them"
                )
        return replace(self, **sizes)


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
        compile: run the transformers' blocks, but for attention itself, as code that torch.compile makes for them when
            the run starts, which takes about a minute and needs a compiler (g++, and Python's headers for a GPU);
            with ZeRO stages 0 to 2, and without tensor_parallel.
        offload: what lies in the host's memory instead of the device's: the optimizer with its state (from ZeRO
            stage 1 on), and also the parameters (stage 3).
        sequence_parallel: neighbouring processes that share every clip, each with its part of the trunk's frames, for
            clips whose activations one device does not hold (DeepSpeed Ulysses); 1 shares none.
        tensor_parallel: neighbouring processes that share the matrices of every transformer block, each with its part
            of the heads and of the hidden channels, for models of which ZeRO 3 still leaves too much on one device
            (DeepSpeed AutoTP; with adamw, and without sequence_parallel); 1 shares none.
        spike_factor: an update whose loss or gradient norm is above so many times the median of the latest 64 is left
            out and counted (with adamw; not before 16 are known); 0 for none.
        hang_seconds: an update that takes longer ends the process with the stacks of all its threads; 0 for never.
        seed: of weights, order of data and every draw.
        report_every: steps between two reports of scalars.
        preview_every: steps between two reports of pictures, film strips, videos and sound.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: newest whole checkpoints that are kept; those older than them are deleted as soon as a new one
            is complete. Damaged ones that are newer than the oldest of them stay, since they might be restored.
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
    compile: bool = False
    offload: Literal["none", "optimizer", "parameters"] = "none"
    sequence_parallel: int = 1
    tensor_parallel: int = 1
    spike_factor: float = 0.0
    hang_seconds: float = 600.0
    seed: int = 0
    report_every: int = 20
    preview_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2

    @property
    def num_sharing(self) -> int:
        """Neighbouring processes that read the same clips and draw the same numbers."""
        return self.sequence_parallel * self.tensor_parallel
