"""Compiling the transformers' blocks: what it does not go with."""

from worldmodel.settings import TrainingSettings


def refuse_unfit(settings: TrainingSettings) -> None:
    """Refuse what blocks are not compiled with.

    Raises:
        ValueError: names the setting.
    """
    if not settings.compile:
        return
    if settings.zero_stage == 3:
        raise ValueError(
            "training.compile=true with training.zero_stage=3: DeepSpeed brings the weights of one layer at a time, in "
            "the middle of what would be compiled; use stage 0, 1 or 2, or leave training.compile out"
        )
    if settings.tensor_parallel != 1:
        raise ValueError(
            f"training.compile=true with training.tensor_parallel={settings.tensor_parallel}: processes add up in the "
            "middle of what would be compiled; leave one of them out"
        )
