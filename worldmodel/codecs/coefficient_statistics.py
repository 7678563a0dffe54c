"""How many bits the codes of a DCT codec carry, at every zigzag frequency and for every value that is not zero.

Most coefficients are zero, so the share of codes that a model guesses right says nothing: zeros alone are right nine
times in ten. Entropy and cross-entropy, per value and per non-zero value, do say something.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from worldmodel.codecs.dct import PictureDCT
from worldmodel.evaluation.metrics import entropy_bits

COLOURS = ("luma", "chroma")


@dataclass(frozen=True)
class FrequencyBits:
    """Bits at one frequency of one colour.

    Attributes:
        layer: which of the codec's qualities, coarse to fine.
        colour: luma or chroma.
        frequency: zigzag index; 0 is the mean of a block, or its difference to its neighbour.
        num_values: counted.
        num_nonzero: of them.
        entropy: bits per value of the best code that knows how often each value occurs here.
        cross_entropy: bits per value of the best code for the reference.
    """

    layer: int
    colour: str
    frequency: int
    num_values: int
    num_nonzero: int
    entropy: float
    cross_entropy: float

    @property
    def entropy_per_nonzero(self) -> float:
        """All bits, those of zeros included, over the values that are not zero (infinite if there is none)."""
        return self._per_nonzero(self.entropy)

    @property
    def cross_entropy_per_nonzero(self) -> float:
        """The same of the cross-entropy."""
        return self._per_nonzero(self.cross_entropy)

    def _per_nonzero(self, bits: float) -> float:
        return bits * self.num_values / self.num_nonzero if self.num_nonzero else float("inf")


class CoefficientStatistics:
    """Counts the values of a codec's codes: (layer, colour, frequency, value), the value 0 in the middle."""

    def __init__(self, codec: PictureDCT) -> None:
        self.codec = codec
        self.bound = max(scale.vocabulary // 2 for scale in codec.pyramid.scales[int(codec.adapted) :])
        shape = (codec.num_layers, len(COLOURS), codec.settings.block**2, 2 * self.bound + 1)
        self.counts = np.zeros(shape, np.int64)

    def add(self, codes: Integer[np.ndarray, "*clip code"]) -> None:
        """Count the codes of frames."""
        for layer, parts in enumerate(self.codec.signed(codes)):
            for colour, values in enumerate(parts):
                by_frequency = values.movedim(2, 0).flatten(1).numpy(force=True)
                for frequency, here in enumerate(by_frequency + self.bound):
                    self.counts[layer, colour, frequency] += np.bincount(here, minlength=self.counts.shape[-1])

    def rows(self, reference: "CoefficientStatistics") -> list[FrequencyBits]:
        """Bits at every frequency, layer by layer, luma before chroma.

        Args:
            reference: of other frames; a code made for them is what the cross-entropy asks about.

        Raises:
            ValueError: nothing was counted.
        """
        found = []
        for layer, colour, frequency in np.ndindex(*self.counts.shape[:3]):
            counts, others = self.counts[layer, colour, frequency], reference.counts[layer, colour, frequency]
            num_values = int(counts.sum())
            row = (layer, COLOURS[colour], frequency, num_values, num_values - int(counts[self.bound]))
            found.append(FrequencyBits(*row, entropy_bits(counts), cross_entropy_bits(counts, others)))
        return found


def cross_entropy_bits(counts: Int[np.ndarray, " value"], reference: Int[np.ndarray, " value"]) -> float:
    """Bits per value of what was counted, in the best code for the reference.

    Every value of the vocabulary is taken to have occurred half a time more in the reference than it did (Krichevsky
    and Trofimov 1981), so that none is impossible.

    Raises:
        ValueError: nothing was counted.
    """
    if counts.sum() == 0:
        raise ValueError("no values were counted")
    expected = (reference + 0.5) / (reference + 0.5).sum()
    return float(-(counts / counts.sum() * np.log2(expected)).sum())
