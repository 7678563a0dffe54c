"""What an ablation compares; torch-free, so that --help is quick."""

from dataclasses import dataclass, field

from streams.settings import LoaderSettings
from worldmodel.settings import ModelSettings, TrainingSettings, TransformerSettings


@dataclass(frozen=True)
class AblationSettings:
    """Structures of the world model, trained on one latent cache by equal numbers of operations.

    Attributes:
        cache: latent cache of pictures.
        codec: folder of the codec it was made with.
        out: folder for all runs and ablation.png; an ablation that was stopped goes on there.
        names: which candidates are trained; none are all. The table is of all that are measured.
        num_frames: frames of a clip in training.
        model: of the candidate coarse-to-fine; the others have the same sizes.
        loader: of the training.
        training: of the candidate coarse-to-fine; the others get as many steps as make the same number of operations.
        context_frames: true frames before a rollout.
        horizon: frames that are imagined.
        num_clips: held-out clips that are measured.
        speed: train and measure nothing, but time a few steps and frames of every candidate.
    """

    cache: str
    codec: str
    out: str
    names: list[str] = field(default_factory=list)
    num_frames: int = 16
    model: ModelSettings = field(
        default_factory=lambda: ModelSettings(
            trunk=TransformerSettings(dim=64, depth=2, num_heads=2),
            decoder=TransformerSettings(dim=64, depth=2, num_heads=2),
            copy_bias=2.0,
            guess_weight=1.0,
        )
    )
    loader: LoaderSettings = field(default_factory=lambda: LoaderSettings(batch_size=8, num_workers=0))
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=300, warmup_steps=20, optimizer="muon", learning_rate=3e-3, zero_stage=0, preview_every=0
        )
    )
    context_frames: int = 8
    horizon: int = 16
    num_clips: int = 48
    speed: bool = False
