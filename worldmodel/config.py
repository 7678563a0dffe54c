"""Settings from a file and dotted overrides, checked key by key and type by type (jsonargparse)."""

import dataclasses
import difflib
import json
import os
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from worldmodel.errors import SettingsError

SettingsT = TypeVar("SettingsT")

_OWN_OPTIONS = ("config", "print_config", "help")


def parse(settings_class: type[SettingsT], argv: Sequence[str], prog: str | None = None, note: str = "") -> SettingsT:
    """Settings from `--config FILE`, `--dotted.key value` overrides (the last one wins), and the class's defaults.

    A list takes several values: `--codecs runs/picture runs/sound`. `--print_config` prints the resolved settings as
    YAML and `--help` all keys; both end the program.

    Args:
        settings_class: frozen dataclass whose fields are plain values or further dataclasses.
        argv: the arguments behind the command.
        prog: how the command is called, for `--help`.
        note: what `--help` says at its end.

    Raises:
        SettingsError: for an unknown or missing key or a value of a wrong type; names the key.
    """
    keys = dict(_keys(settings_class))
    about = (settings_class.__doc__ or "").split("\n")[0]
    parser = ArgumentParser(prog=prog, exit_on_error=False, description=about, epilog=note)
    parser.add_argument("--config", action="config", help="YAML file that states differences from the defaults")
    parser.add_class_arguments(settings_class)
    arguments = _join_lists(argv, keys)
    _check_options(arguments, keys)
    try:
        namespace = parser.instantiate(parser.parse_args(arguments))
    except ArgumentError as error:
        raise SettingsError(_one_line(error)) from error
    return settings_class(**{field.name: namespace[field.name] for field in dataclasses.fields(settings_class)})  # type: ignore[arg-type]


def read_settings(settings_class: type[SettingsT], path: str | Path) -> SettingsT:
    """Settings of one YAML file, as `write_settings` wrote it or as a user did."""
    return parse(settings_class, ["--config", str(path)])


def write_settings(settings: Any, path: str | Path) -> None:
    """Write settings as YAML that `read_settings` and `--config` read back. The file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")  # one name, so that kills leave no more than one
    try:
        with partial.open("w", encoding="utf-8") as file:
            yaml.safe_dump(_plain(dataclasses.asdict(settings)), file, sort_keys=False, allow_unicode=True)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _keys(settings_class: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a settings class with its type; a nested class is a key of its own too."""
    hints = typing.get_type_hints(settings_class)
    for field in dataclasses.fields(settings_class):
        yield prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], f"{prefix}{field.name}.")


def _join_lists(argv: Sequence[str], keys: dict[str, Any]) -> list[str]:
    """`--codecs a b` as `--codecs=["a", "b"]`, which is how jsonargparse takes a list."""
    joined: list[str] = []
    rest = list(argv)
    while rest:
        joined.append(rest.pop(0))
        option, equals, value = joined[-1].partition("=")
        if equals and typing.get_origin(keys.get(option.removeprefix("--"))) is list and not value.startswith("["):
            joined[-1] = f"{option}={json.dumps([value])}"
        if typing.get_origin(keys.get(joined[-1].removeprefix("--"))) is list:
            values = []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            if values and not values[0].startswith("["):
                joined[-1] += f"={json.dumps(values)}"
            else:
                joined += values
    return joined


def _check_options(arguments: Sequence[str], keys: dict[str, Any]) -> None:
    """Refuse unknown keys on the command line and in the files it names, before any value is read."""
    for position, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        key, _, value = argument.removeprefix("--").partition("=")
        if key == "config":
            _check_file(Path(value or "".join(arguments[position + 1 : position + 2])), keys)
        elif key not in _OWN_OPTIONS:
            _check_key(key.removesuffix("+"), keys, "on the command line")


def _check_file(path: Path, keys: dict[str, Any]) -> None:
    if not path.is_file():
        raise SettingsError(f"--config {str(path)!r} is not a file: name a YAML file of settings")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, dict | None):
        raise SettingsError(f"{path} holds {type(content).__name__}, expected `key: value` lines of settings")
    pending = [("", content or {})]
    while pending:
        prefix, mapping = pending.pop()
        for name, value in mapping.items():
            _check_key(f"{prefix}{name}", keys, f"in {path}")
            if isinstance(value, dict) and dataclasses.is_dataclass(keys[f"{prefix}{name}"]):
                pending.append((f"{prefix}{name}.", value))


def _check_key(key: str, keys: dict[str, Any], where: str) -> None:
    if key in keys:
        return
    # The last word is often right where the way to it is not: `steps` for `training.steps`.
    same_end = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    near = same_end or difflib.get_close_matches(key, keys, n=3)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"known keys: {', '.join(keys)}"
    raise SettingsError(f"unknown setting {key!r} {where}: {hint}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
