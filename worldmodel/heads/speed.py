"""Head: whether a clip runs at its own speed or at twice the speed (Epstein et al. 2020, "SpeedNet")."""

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads.readout import EvidenceReadout, HeadResult, tell_apart


class Speed(nn.Module):
    """Tells two views apart from the trunk's states; the score is 1 where a clip is told right."""

    chance = 0.5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.readout = EvidenceReadout(dim)

    def forward(
        self, ordinary: Float[Tensor, "item frame token dim"], fast: Float[Tensor, "other frame token dim"]
    ) -> HeadResult:
        """Loss and scores of clips of both kinds, as many frames each."""
        return HeadResult(*tell_apart(self.readout(ordinary), self.readout(fast)))
