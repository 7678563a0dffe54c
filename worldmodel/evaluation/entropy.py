"""How many bits codes take when they are really entropy-coded (the door of constriction, a range coder).

Two adaptive models of the codes of one plane of a scale. Their counts follow the codes from frame to frame, so that
nothing but the codes is sent; entries not seen yet share the weight of those seen, each of which was new once (method C
of Moffat 1990, "Implementing the PPM data compression scheme"):

- `alone`: every code from how often each entry occurred in the frames before;
- `in_time`: for every place first whether the code of the previous frame stays, given how many of the place and its two
  neighbours in the row of codes changed one frame earlier; then, where it changes, the new code as above, the old one
  excluded. The first frame of a clip is coded alone.
"""

from typing import Literal

import constriction
import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt32

from worldmodel.layout import Pyramid

Model = Literal["alone", "in_time"]
NUM_CONTEXTS = 4  # none to three of a place and its neighbours changed
START_COUNT = 0.5  # of the two answers to whether a code changes (Krichevsky and Trofimov 1981)
ROW_ENTRIES = 1 << 22  # of the tables that are held at a time

Codes = Int64[np.ndarray, " code"]
stream = constriction.stream  # type: ignore[attr-defined] (its modules are made at run time)
Categorical = stream.model.Categorical


class Encoder:
    """Codes to words."""

    def __init__(self) -> None:
        self.coder = stream.queue.RangeEncoder()

    def code(self, codes: Codes, counts: Float64[np.ndarray, " entry"]) -> Codes:
        """Appends codes under one table."""
        self.coder.encode(codes.astype(np.int32), Categorical(counts, perfect=False))
        return codes

    def code_rows(self, codes: Codes, counts: Float64[np.ndarray, "code entry"]) -> Codes:
        """Appends codes under a table for each."""
        self.coder.encode(codes.astype(np.int32), Categorical(perfect=False), counts)
        return codes


class Decoder:
    """Words to codes."""

    def __init__(self, words: UInt32[np.ndarray, " word"]) -> None:
        self.coder = stream.queue.RangeDecoder(words)

    def code(self, codes: Codes, counts: Float64[np.ndarray, " entry"]) -> Codes:
        """Reads as many codes."""
        return self.coder.decode(Categorical(counts, perfect=False), len(codes)).astype(np.int64)

    def code_rows(self, codes: Codes, counts: Float64[np.ndarray, "code entry"]) -> Codes:
        """Reads one code for each table."""
        return self.coder.decode(Categorical(perfect=False), counts).astype(np.int64)


# The models below walk through the codes in the same way with both.
Coder = Encoder | Decoder


def encode_plane(
    codes: Integer[np.ndarray, "clip frame code"], vocabulary: int, model: Model
) -> UInt32[np.ndarray, " word"]:
    """The codes of one plane as words of 32 bits, clip after clip.

    Args:
        codes: of one plane of a scale, 0 to `vocabulary` - 1.
        vocabulary: entries of the scale's codebook; of a single one nothing is learned, and next to nothing sent.
        model: what a code's probability is taken from.
    """
    encoder = Encoder()
    _MODELS[model](encoder, codes.astype(np.int64), max(2, vocabulary))  # the coder knows no alphabet of one
    return encoder.coder.get_compressed()


def decode_plane(
    words: UInt32[np.ndarray, " word"], shape: tuple[int, int, int], vocabulary: int, model: Model
) -> Int64[np.ndarray, "clip frame code"]:
    """The codes that `encode_plane` was given; the same vocabulary and model are needed."""
    return _MODELS[model](Decoder(words), np.zeros(shape, np.int64), max(2, vocabulary))


def coded_bits(codes: Integer[np.ndarray, "clip frame code"], pyramid: Pyramid, model: Model) -> list[int]:
    """Bits of every scale of all clips together, plane by plane, counted on words that were decoded back.

    Args:
        codes: flat codes of frames.
        pyramid: their layout.
        model: what a code's probability is taken from.
    """
    bits = []
    for part, scale in zip(pyramid.slices, pyramid.scales, strict=True):
        words = 0
        for plane in np.split(codes[..., part], scale.num_codes // (scale.height * scale.width), 2):
            coded = encode_plane(plane, scale.vocabulary, model)
            back = decode_plane(coded, plane.shape, scale.vocabulary, model)
            assert np.array_equal(back, plane), "the entropy coder lost codes"
            words += len(coded)
        bits.append(32 * words)
    return bits


def weights_of(counts: Float64[np.ndarray, " entry"]) -> Float64[np.ndarray, " entry"]:
    """What each entry's probability is in proportion to, given how often it was seen."""
    new = counts == 0
    num_new = int(new.sum())
    return np.where(new, max(1, len(counts) - num_new) / max(1, num_new), counts)


def _alone(coder: Coder, codes: Int64[np.ndarray, "clip frame code"], vocabulary: int) -> np.ndarray:
    counts, found = np.zeros(vocabulary), np.empty_like(codes)
    for clip, frame in np.ndindex(codes.shape[:2]):
        found[clip, frame] = coder.code(codes[clip, frame], weights_of(counts))
        counts += np.bincount(found[clip, frame], minlength=vocabulary)
    return found


def _in_time(coder: Coder, codes: Int64[np.ndarray, "clip frame code"], vocabulary: int) -> np.ndarray:
    counts, found = np.zeros(vocabulary), np.empty_like(codes)
    flags = np.full((NUM_CONTEXTS, 2), START_COUNT)
    for clip, film in enumerate(codes):
        now = found[clip, 0] = coder.code(film[0], weights_of(counts))
        counts += np.bincount(now, minlength=vocabulary)
        changed = np.zeros(len(now), bool)
        for frame in range(1, len(film)):
            changed = _code_changes(coder, film[frame] != now, _contexts(changed), flags)
            new = _code_other(coder, film[frame][changed], now[changed], weights_of(counts))
            now = now.copy()
            now[changed] = new
            counts += np.bincount(new, minlength=vocabulary)
            found[clip, frame] = now
    return found


_MODELS = {"alone": _alone, "in_time": _in_time}


def _contexts(changed: Bool[np.ndarray, " code"]) -> Int64[np.ndarray, " code"]:
    """How many of every place and its neighbours changed."""
    return np.convolve(changed.astype(np.int64), np.ones(3, np.int64))[1:-1]


def _code_changes(
    coder: Coder,
    changed: Bool[np.ndarray, " code"],
    contexts: Int64[np.ndarray, " code"],
    flags: Float64[np.ndarray, "context 2"],
) -> Bool[np.ndarray, " code"]:
    """Which places change, under the counts of their contexts, which follow."""
    found = np.zeros(len(changed), bool)
    for context in range(NUM_CONTEXTS):
        here = contexts == context
        bits = coder.code(changed[here].astype(np.int64), flags[context])
        flags[context] += np.bincount(bits, minlength=2)
        found[here] = bits.astype(bool)
    return found


def _code_other(coder: Coder, codes: Codes, old: Codes, counts: Float64[np.ndarray, " entry"]) -> Codes:
    """Codes of which each is another than the old one at its place."""
    step = max(1, ROW_ENTRIES // len(counts))
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(codes), step):
        part = slice(start, start + step)
        rows = np.tile(counts, (len(old[part]), 1))
        rows[np.arange(len(rows)), old[part]] = 0.0
        found.append(coder.code_rows(codes[part], rows))
    return np.concatenate(found)
