"""The stages of every variant of a study: its settings, checked before anything runs, and where its files lie."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from tools.latents import build
from tools.study.settings import Overrides, StudySettings
from worldmodel.config import parse
from worldmodel.errors import SettingsError
from worldmodel.settings import EvaluateSettings, TokenizerSettings, TrainSettings

MADE_OF, MEASURES = "made_of.json", "measures.json"


@dataclass(frozen=True)
class Plan:
    """One variant.

    Attributes:
        name: of the variant.
        folder: of what is its own.
        made_of: all that its results depend on.
        tokenizer: settings of its codec.
        cache: arguments of the build of its latent cache.
        train: settings of its world model.
        evaluate: settings of its measurement.
    """

    name: str
    folder: Path
    made_of: dict[str, Any]
    tokenizer: TokenizerSettings
    cache: Namespace
    train: TrainSettings
    evaluate: EvaluateSettings


def plans_of(settings: StudySettings) -> list[Plan]:
    """The variants in their order; what is equal in two of them is made once, in the folder of the first.

    Raises:
        SettingsError: an option is wrong, a name is unknown, or a folder holds results of other settings.
    """
    if not settings.variants:
        raise SettingsError("the study has no variants: name a file that has some, as in configs/studies")
    unknown = [
        name for pair in settings.compare.items() for name in (pair[0], *pair[1]) if name not in settings.variants
    ]
    if unknown:
        raise SettingsError(f"compare names {unknown[0]!r}, expected one of {', '.join(settings.variants)}")
    merged = {name: _merged(settings.base, own) for name, own in settings.variants.items()}
    plans = [_plan(settings, name, merged) for name in merged]
    for plan in plans:
        _check_folder(plan)
    return plans


def options(overrides: dict[str, Any]) -> list[str]:
    """Dotted options as a command line."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]


def _merged(base: Overrides, own: Overrides) -> Overrides:
    parts = {key: {**value, **asdict(own)[key]} for key, value in asdict(base).items()}
    return Overrides(**parts)


def _plan(settings: StudySettings, name: str, merged: dict[str, Overrides]) -> Plan:
    own, out = merged[name], Path(settings.out)
    codec = out / _first(merged, lambda other: other.tokenizer == own.tokenizer) / "picture"
    cache = out / _first(merged, lambda other: (other.tokenizer, other.cache) == (own.tokenizer, own.cache))
    cache, world = cache / "latents.zarr", out / name / "world"
    data = ["--cache", str(cache), "--codecs", str(codec), "--run", str(world)]
    return Plan(
        name,
        out / name,
        {"videos": settings.videos, **asdict(own)},
        _parsed(TokenizerSettings, name, [*options(own.tokenizer), "--videos", settings.videos, "--run", str(codec)]),
        build.build_parser().parse_args([settings.videos, str(cache), "--codec", str(codec), *options(own.cache)]),
        # What a file states of them comes after: the last one wins.
        _parsed(TrainSettings, name, [*options(own.train), *data]),
        _parsed(EvaluateSettings, name, [*options(own.evaluate), "--run", str(world)]),
    )


def _first(merged: dict[str, Overrides], fits: Any) -> str:
    return next(name for name, other in merged.items() if fits(other))


def _parsed(settings_class: Any, name: str, arguments: Sequence[str]) -> Any:
    try:
        return parse(settings_class, arguments)
    except SettingsError as error:
        raise SettingsError(f"variant {name}: {error}") from error


def _check_folder(plan: Plan) -> None:
    path = plan.folder / MADE_OF
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(plan.made_of)):
        raise SettingsError(
            f"{plan.folder} holds variant {plan.name} of other settings or videos: give another --out, or remove it"
        )
