import pytest
import torch

from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import VOCABULARY, random_codes
from tools.ablation.code_by_code import CodeByCode
from tools.ablation.orders import ORDERS


@pytest.mark.parametrize("name", ORDERS)
@torch.no_grad()
def test_a_code_sees_those_before_it_in_the_order_and_no_others(name: str):
    candidate = lively("random-order" if name == "random" else name)
    assert isinstance(candidate, CodeByCode)
    order = candidate.decoder.order.tolist()
    codes = random_codes(1, 3, candidate.model.num_codes)
    now = candidate.predict(codes).nats[0, 1]
    for number in (0, 2, 9, len(order) - 2):
        other = codes.clone()
        other[0, 2, order[number]] = (other[0, 2, order[number]] + 1) % VOCABULARY
        told = candidate.predict(other).nats[0, 1]
        moved = {column for column in range(len(order)) if abs(float(told[column] - now[column])) > 1e-5}
        assert moved.isdisjoint(order[:number])
        assert order[number + 1] in moved


def test_the_scales_come_coarse_to_fine_in_every_order():
    for name in ORDERS:
        candidate = lively("random-order" if name == "random" else name)
        assert isinstance(candidate, CodeByCode)
        sizes = candidate.decoder.sizes
        parts = candidate.decoder.order.split(sizes)
        assert [sorted(part.tolist()) for part in parts] == [
            list(range(s.start, s.stop)) for s in candidate.decoder.slices
        ]
