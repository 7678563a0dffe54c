import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from worldmodel.cut_attention import attend_in_pieces
from worldmodel.sight import Piece, Sight

# Two frames without a mask, then scales that see each other only in part.
PIECES = [
    Piece(slice(0, 3), slice(0, 5), None),
    Piece(slice(3, 5), slice(2, 9), None),
    Piece(slice(5, 9), slice(1, 9), Sight.of_scales([1, 3], 4).mask()),
]
Three = tuple[Tensor, Tensor, Tensor]
KINDS = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def written_out(query: Tensor, key: Tensor, value: Tensor, pieces: list[Piece]) -> Tensor:
    outs = []
    for piece in pieces:
        scores = query[:, :, piece.queries] @ key[:, :, piece.keys].mT / query.shape[-1] ** 0.5
        if piece.mask is not None:
            scores = scores.masked_fill(~piece.mask, -torch.inf)
        outs.append(scores.softmax(-1) @ value[:, :, piece.keys])
    return torch.cat(outs, 2)


def leaves(kind: torch.dtype) -> Three:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 9, 16, generator=generator).to(kind)
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def as_double(inputs: Three) -> Three:
    query, key, value = (x.detach().double().requires_grad_() for x in inputs)
    return query, key, value


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("pieces", [PIECES, [Piece(slice(0, 9), slice(0, 9), None)]], ids=["three", "one"])
def test_pieces_and_their_gradients_are_those_of_a_softmax_written_out(kind: torch.dtype, pieces: list[Piece]):
    inputs, pull = leaves(kind), torch.randn(2, 3, 9, 16, dtype=torch.double)
    found = attend_in_pieces(*inputs, pieces)
    found.backward(pull.to(kind))
    exact = as_double(inputs)
    expected = written_out(*exact, pieces)
    expected.backward(pull.to(kind).double())
    for one, other in [(found, expected), *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True))]:
        assert one is not None
        assert one.dtype == kind
        torch.testing.assert_close(one.double(), other, atol=KINDS[kind], rtol=KINDS[kind])


@pytest.mark.parametrize("number", range(3))
def test_only_what_needs_a_gradient_gets_one(number: int):
    query, key, value = (x.detach() for x in leaves(torch.float32))
    inputs = query, key, value
    inputs[number].requires_grad_()
    attend_in_pieces(*inputs, PIECES).square().sum().backward()
    exact = as_double(inputs)
    written_out(*exact, PIECES).square().sum().backward()
    assert [x.grad is None for x in inputs] == [other != number for other in range(3)]
    grads = inputs[number].grad, exact[number].grad
    assert grads[0] is not None
    assert grads[1] is not None
    torch.testing.assert_close(grads[0].double(), grads[1], atol=1e-5, rtol=1e-5)


def test_a_gradient_that_is_one_number_for_all_is_read_as_such():
    inputs = leaves(torch.float32)
    attend_in_pieces(*inputs, PIECES).sum().backward()
    exact = as_double(inputs)
    written_out(*exact, PIECES).sum().backward()
    for one, other in zip(inputs, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("number", range(3))
def test_inputs_whose_channels_are_not_side_by_side_are_read_as_they_are(number: int):
    inputs = [x.detach() for x in leaves(torch.float32)]
    inputs[number] = inputs[number].mT.contiguous().mT
    query, key, value = (x.requires_grad_() for x in inputs)
    found = attend_in_pieces(query, key, value, PIECES)
    found.square().sum().backward()
    exact = as_double((query, key, value))
    expected = written_out(*exact, PIECES)
    expected.square().sum().backward()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    for one, other in zip((query, key, value), exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


def test_pieces_that_are_run_again_have_the_gradient_of_those_that_were_kept():
    inputs, again = leaves(torch.float32), leaves(torch.float32)
    attend_in_pieces(*inputs, PIECES).square().sum().backward()
    checkpoint(attend_in_pieces, *again, PIECES, use_reentrant=False).square().sum().backward()
    for one, other in zip(inputs, again, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_pieces_are_the_same_with_and_without_a_gradient():
    inputs = leaves(torch.float32)
    with torch.no_grad():
        expected = attend_in_pieces(*inputs, PIECES)
    found = attend_in_pieces(*inputs, PIECES)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()  # a token's heads side by side
