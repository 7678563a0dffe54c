"""What a set of codes looks like: how many entries are in use, and how many codes change from frame to frame."""

from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from torch import Tensor

from streams.clip import to_float
from worldmodel.codecs.objective import still_codes
from worldmodel.evaluation.metrics import entropy_bits
from worldmodel.layout import Pyramid


class CodeStatistics:
    """Counts codes and changes of every scale."""

    def __init__(self, pyramid: Pyramid) -> None:
        self.pyramid = pyramid
        self.counts = [np.zeros(scale.vocabulary, np.int64) for scale in pyramid.scales]
        self.num_changed = np.zeros(len(pyramid.scales), np.int64)
        self.num_pairs = 0  # of consecutive frames

    def add(self, codes: Integer[np.ndarray, "clip frame code"]) -> None:
        """Count the codes of clips."""
        changed = codes[:, 1:] != codes[:, :-1]
        self.num_pairs += changed.shape[0] * changed.shape[1]
        for index, part in enumerate(self.pyramid.slices):
            self.counts[index] += np.bincount(codes[..., part].reshape(-1), minlength=len(self.counts[index]))
            self.num_changed[index] += changed[..., part].sum()

    def summary(self) -> list[dict[str, Any]]:
        """For every scale: its grid, entries in use, their perplexity, bits per code, share of codes that change."""
        return [
            {
                "grid": [scale.height, scale.width],
                "planes": scale.planes,
                "vocabulary": scale.vocabulary,
                "used": int((counts > 0).sum()),
                "perplexity": round(2 ** entropy_bits(counts), 2),
                "entropy_bits": round(entropy_bits(counts), 3),
                "changed": round(float(changed) / max(1, self.num_pairs * scale.num_codes), 4),
            }
            for scale, counts, changed in zip(self.pyramid.scales, self.counts, self.num_changed, strict=True)
        ]


class StillStatistics:
    """Counts codes of the finest scale that change where the picture stands still: they are noise to predict."""

    def __init__(self, pyramid: Pyramid) -> None:
        self.pyramid = pyramid
        self.num_still = self.num_changed = 0

    def add(
        self, codes: Integer[np.ndarray, "clip frame code"], frames: UInt8[Tensor, "clip frame 3 height width"]
    ) -> None:
        """Count the codes of clips; the patch under a code is still below a mean difference of 2 grey levels."""
        finest = codes[..., self.pyramid.slices[-1]]
        still = still_codes(to_float(frames), self.pyramid).numpy(force=True)
        self.num_still += int(still.sum())
        self.num_changed += int((still & (finest[:, 1:] != finest[:, :-1])).sum())

    def summary(self) -> dict[str, Any]:
        """Finest codes whose patch stands still, how many and which share of them change (None without any)."""
        changed = round(self.num_changed / self.num_still, 4) if self.num_still else None
        return {"num_still": self.num_still, "num_changed": self.num_changed, "changed": changed}
