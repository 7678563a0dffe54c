"""What a study is; torch-free, so that --help is quick."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Overrides:
    """Options of the four commands that make and measure a world model, by their dotted names.

    Attributes:
        tokenizer: of `worldmodel tokenizer`, for the picture codec; `config` names a file to begin from.
        cache: of `python -m tools.latents build`.
        train: of `worldmodel train`; `config` names a file to begin from.
        evaluate: of `worldmodel evaluate`.
    """

    tokenizer: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudySettings:
    """World models that differ in a setting or two, measured side by side.

    Attributes:
        videos: folder of videos, one video, a glob or a manifest.
        out: folder for all runs, study.json and study.png; a study that was stopped goes on there.
        base: what all variants share.
        variants: what is different in each, by its name; variants with equal codecs share them.
        compare: for a variant, the names of others, ordered by quality: what they would cost at its codec's PSNR.
    """

    videos: str
    out: str
    base: Overrides = field(default_factory=Overrides)
    variants: dict[str, Overrides] = field(default_factory=dict)
    compare: dict[str, list[str]] = field(default_factory=dict)
