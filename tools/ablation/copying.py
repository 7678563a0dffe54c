"""Readouts that copy less of the previous frame than the world model's, or copy it from elsewhere."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tools.ablation.candidate import Candidate
from worldmodel.decoder import Readout
from worldmodel.layout import Scale
from worldmodel.model import WorldModel
from worldmodel.modules import Modules

Logits = Float[Tensor, "item code vocabulary"]
Guess = Float[Tensor, "item place latent"]


class NoGate(Readout):
    """The previous frame's latent is where the guess begins, but its codes get no logit of their own."""

    def forward(self, x: Tensor, left_over: Tensor, vectors: Tensor, previous: Tensor) -> tuple[Logits, Guess]:
        """See `Readout.forward`."""
        logits, guess = super().forward(x, left_over, vectors, previous)
        gates = self.gate(self.norm(x)).float().transpose(1, 2).flatten(1)
        return logits.scatter_add(2, previous[..., None], -gates[..., None]), guess


class NoCopy(NoGate):
    """Nothing of the previous frame is added to what the transformer says."""

    def forward(self, x: Tensor, left_over: Tensor, vectors: Tensor, previous: Tensor) -> tuple[Logits, Guess]:
        """See `Readout.forward`."""
        return super().forward(x, torch.zeros_like(left_over), vectors, previous)


class MotionCopy(Readout):
    """The code may also be copied from around its place: a gate for each of the places from where it may have come.

    The motion is not given but learned, as a weight for each of the displacements (a kernel for each place: Finn et al.
    2016, "Unsupervised learning for physical interaction through video prediction").
    """

    REACH = 2  # places that a code may have moved by, in rows and in columns

    def __init__(self, dim: int, latent_dim: int, scale: Scale, copy_bias: float) -> None:
        """Build for a scale of one plane."""
        super().__init__(dim, latent_dim, scale, copy_bias)
        self.grid, side = (scale.height, scale.width), 2 * self.REACH + 1
        self.gates = nn.Linear(dim, side * side)

    def initialise(self) -> None:
        """Start as a copy from the same place."""
        super().initialise()
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, x: Tensor, left_over: Tensor, vectors: Tensor, previous: Tensor) -> tuple[Logits, Guess]:
        """See `Readout.forward`."""
        logits, guess = super().forward(x, left_over, vectors, previous)
        return logits.scatter_add(2, self.around(previous), self.gates(self.norm(x)).float()), guess

    def around(self, codes: Int[Tensor, "item place"]) -> Int[Tensor, "item place displacement"]:
        """The codes of the places around each; beyond the edge are those of the edge."""
        side = 2 * self.REACH + 1
        maps = codes.double().unflatten(1, self.grid)[:, None]
        wide = F.pad(maps, (self.REACH,) * 4, mode="replicate")
        return F.unfold(wide, side).transpose(1, 2).long()


class OtherReadouts(Candidate):
    """Trunk and decoder as they are."""

    def __init__(self, model: WorldModel, readout: type[Readout]) -> None:
        """Replace the readouts of a model."""
        super().__init__(model)
        decoder, settings = model.decoder, model.settings
        assert all(scale.planes == 1 for scale in decoder.scales), "a place has one code"
        decoder.readouts = Modules[Readout](
            readout(settings.decoder.dim, decoder.quantizers[m].dim, scale, settings.copy_bias)
            for (m, _), scale in zip(decoder.levels, decoder.scales, strict=True)
        )
        for each in decoder.readouts:
            each.initialise()
