"""Means of the loss and the metrics over the steps of a report and over the processes."""

import torch
from torch import Tensor

from worldmodel.training import cluster


class Meter:
    """Sums on the device; only `read` waits for it.

    A metric that is NaN in a step was not measured there, and is left out of the mean.
    """

    def __init__(self) -> None:
        """Nothing measured yet."""
        self.names: list[str] = []
        self.sums: Tensor | None = None

    def add(self, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Adds one step of this process.

        Raises:
            ValueError: the names of the metrics are not those of the step before.
        """
        values = metrics | {"loss": loss.detach()}
        names = sorted(values)
        if self.sums is not None and names != self.names:
            raise ValueError(f"metrics {names} differ from those of the step before, {self.names}: give NaN for none")
        row = torch.stack([values[name].float().reshape(()) for name in names])
        sums = torch.stack([row.nan_to_num(nan=0.0), (~row.isnan()).float()])
        self.names = names
        self.sums = sums if self.sums is None else self.sums + sums

    def read(self) -> dict[str, float]:
        """Means since the last `read`, over all processes, which must call it together."""
        if self.sums is None:
            return {}
        sums, counts = cluster.sum_(self.sums).tolist()
        self.sums = None
        means = zip(self.names, sums, counts, strict=True)
        return {name: total / count if count else float("nan") for name, total, count in means}
