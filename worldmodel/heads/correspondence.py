"""Head: whether sound and picture belong together (Arandjelovic and Zisserman 2017, "Look, Listen and Learn")."""

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads.readout import EvidenceReadout, HeadResult, tell_apart


class Correspondence(nn.Module):
    """Tells two views apart from the trunk's states; the score is 1 where a clip is told right."""

    chance = 0.5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.readout = EvidenceReadout(dim)

    def forward(
        self, together: Float[Tensor, "item frame token dim"], apart: Float[Tensor, "other frame token dim"]
    ) -> HeadResult:
        """Loss and scores of clips of both kinds, as many frames each."""
        return HeadResult(*tell_apart(self.readout(together), self.readout(apart)))
