"""A transformer's block for items whose tokens may stand at places of their own."""

from jaxtyping import Complex, Float
from torch import Tensor

from worldmodel.attention import Backend, attend
from worldmodel.blocks import Block, Layer, joined
from worldmodel.sight import Sight


def run_block(
    block: Block,
    x: Float[Tensor, "item token dim"],
    turns: Complex[Tensor, "one_or_item token half"],
    past: Layer | None,
    sight: Sight | None,
) -> tuple[Float[Tensor, "item token dim"], Layer]:
    """What the block does to every item alone, with the turns of that item; see `Block.forward`.

    A block turns the tokens of all items alike. So where they differ all items stand in one row, and are parted only
    where they attend.
    """
    if len(turns) == 1:
        return block.extend(x, turns[0], past, sight)
    kept: list[Layer] = []

    def by(query: Tensor, key: Tensor, value: Tensor, sight: Sight | None, backend: Backend) -> Tensor:
        query, key, value = (each[0].unflatten(1, x.shape[:2]).transpose(0, 1) for each in (query, key, value))
        kept.append(joined(past, (key, value)))
        return attend(query, *kept[-1], sight, backend).transpose(0, 1).flatten(1, 2)[None]

    row = block(x.flatten(0, 1)[None], turns.flatten(0, 1), None, sight, by)
    return row[0].unflatten(0, x.shape[:2]), kept[-1]
