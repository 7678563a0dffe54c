"""Updates that would do harm are left out by a stated rule, and counted.

Losses and norms are compared with their running median, which a spike hardly moves; after the skipped batches of PaLM
(Chowdhery et al. 2022, section 5.1), where people chose them by hand. Updates that were left out count in the median
too: what is high for longer (other data, say) is half of the latest 64 after 32 updates, and no spike from then on.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable

NUM_RECENT, LEAST = 64, 16
SKIP = -1.0  # a bound that no norm keeps


class Spikes:
    """The latest losses and gradient norms of a run, made into updates or not.

    Attributes:
        recent: (loss, norm) of up to 64 updates.
        num_skipped: updates left out so far.
    """

    def __init__(self, factor: float, recent: Iterable[Iterable[float]] = (), num_skipped: int = 0) -> None:
        """Goes on from `recent`.

        Args:
            factor: of the median, above which a loss or a norm is a spike; 0 calls nothing one.
            recent: what a checkpoint remembers.
            num_skipped: likewise.
        """
        self.factor, self.num_skipped = factor, num_skipped
        self.recent: deque[tuple[float, float]] = deque(((loss, norm) for loss, norm in recent), NUM_RECENT)

    def largest_norm(self, loss: float) -> float:
        """Largest gradient norm that an update with this loss may have; -1 where the loss itself is a spike."""
        return SKIP if loss > self.bound(0) else self.bound(1)

    def bound(self, column: int) -> float:
        """Largest loss (0) or norm (1) that is no spike; infinite until 16 updates are known."""
        if self.factor <= 0 or len(self.recent) < LEAST:
            return math.inf
        median = statistics.median(pair[column] for pair in self.recent)
        return self.factor * median if median > 0 else math.inf

    def note(self, loss: float, norm: float, made: bool) -> None:
        """Remembers an update, and counts it if it was not made."""
        if self.factor > 0:
            self.recent.append((loss, norm))
        self.num_skipped += not made
