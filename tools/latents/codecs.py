"""The codecs of a cache, and clips decoded by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from streams.clip import Clip, to_uint8
from worldmodel.cache.latents import LatentCache, require_codec
from worldmodel.codecs.store import load_codec
from worldmodel.errors import CacheError


def load_codecs(runs: Sequence[str]) -> list[Any]:
    """The codecs of runs, ready to encode."""
    return [load_codec(Path(each)).eval() for each in runs]


def find_codecs(cache: LatentCache, given: Sequence[str]) -> list[Any]:
    """The codecs that made a cache: those that are given, or else those that it names.

    Raises:
        CacheError: those that it names are gone, or others were given.
    """
    named = [codec["run"] for codec in cache.info.codecs.values()]
    gone = [each for each in named if not Path(each).exists() or not each]
    if not given and (gone or not named):
        raise CacheError(f"the runs of its codecs ({', '.join(gone) or 'not noted'}) are gone: give --codec")
    codecs = load_codecs(given or named)
    require_codec(cache.path, {codec.kind: codec.fingerprint for codec in codecs})
    return codecs


@torch.no_grad()
def decode_clip(cache: LatentCache, codecs: Sequence[Any], position: int) -> Clip:
    """What the codes of a clip look and sound like; with no sound where its video has none."""
    kinds, rows = {codec.kind: codec for codec in codecs}, cache.rows
    name, _ = cache.info.videos[int(rows["video"][position])]
    codes = {kind: torch.from_numpy(rows[kind][position].astype("int64"))[None] for kind in kinds}
    sound = None
    if "sound" in kinds and rows["has_sound"][position]:
        sound = kinds["sound"].decode(codes["sound"])[0].float()
    frames = to_uint8(kinds["picture"].decode(codes["picture"])[0]).contiguous()
    return Clip(frames, torch.from_numpy(rows["seconds"][position].copy()), sound, name)
