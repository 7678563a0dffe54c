import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from streams.geometry import warp
from worldmodel.heads.flow import CELLS, Flow, charbonnier, smoothness

GRID, DIM, SIDE = (2, 2), 16, 16


def pictures(count: int, seed: int) -> Tensor:
    """Smooth random pictures of 48x48, so that windows of 16x16 can move about in them; 0 to 255."""
    noise = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (48, 48), mode="bicubic").clamp(0, 1) * 255


def moving(count: int, num_frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Thumbnails of windows that move by whole pixels, and (x, y) by which what they show moves in every step."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(-2, 3, (count, num_frames, 2), generator=generator)
    steps[:, 0] = 0
    places = 16 - steps.cumsum(1)  # the content moves against the window
    thumbnails = torch.stack([
        torch.stack([
            picture[:, row : row + SIDE, column : column + SIDE] for column, row in clip.clamp(0, 32).tolist()
        ])
        for picture, clip in zip(pictures(count, seed), places, strict=True)
    ])  # fmt: skip
    return thumbnails.round().to(torch.uint8), steps


def telling(steps: Tensor) -> Tensor:
    """States (batch, frame, token, dim) from whose first two channels the displacement can be read."""
    states = torch.zeros(*steps.shape[:2], GRID[0] * GRID[1] + 1, DIM)
    states[..., :2] = steps[:, :, None].float() / 2
    states[..., 2] = 1.0
    return states


def told(head: Flow, steps: Tensor, sign: float = 1.0) -> Flow:
    """A head made to answer minus the displacement: where each pixel came from."""

    class Oracle(torch.nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            answer = -sign * states[..., :2] * 2 / (SIDE / 16)
            return answer.repeat_interleave(CELLS * CELLS, -1)

    head.layers = Oracle()  # type: ignore[assignment]
    return head


def lively() -> Flow:
    """A head whose flow depends on the states."""
    head = Flow(DIM, GRID)
    torch.nn.init.normal_(head.layers[2].weight, std=0.2)  # type: ignore[arg-type]
    return head


def test_the_true_flow_explains_nearly_all_and_its_reverse_makes_it_worse():
    thumbnails, steps = moving(8, 4, seed=0)
    states = telling(steps)
    right = told(Flow(DIM, GRID), steps)(states, thumbnails)
    wrong = told(Flow(DIM, GRID), steps, -1.0)(states, thumbnails)
    none = Flow(DIM, GRID)
    still = none(states, thumbnails)
    assert right.scores.mean() > 0.8  # the rest is what comes in at the border
    assert wrong.scores.mean() < 0
    assert right.loss < still.loss < wrong.loss


def test_inside_the_border_the_true_flow_explains_all():
    thumbnails, steps = moving(4, 3, seed=1)
    head = told(Flow(DIM, GRID), steps)
    frames = thumbnails.float()
    flow = head.flow(telling(steps)[:, 1:].flatten(0, 1), SIDE, SIDE)
    warped = warp(frames[:, :-1].flatten(0, 1), flow)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(warped[inner], frames[:, 1:].flatten(0, 1)[inner], atol=1e-3, rtol=0)


def test_no_motion_at_the_start_and_a_score_of_chance():
    thumbnails, _ = moving(3, 4, seed=2)
    head = Flow(DIM, GRID)
    result = head(torch.randn(3, 4, 5, DIM), thumbnails)
    assert result.scores.tolist() == pytest.approx([Flow.chance] * 3, abs=1e-4)
    assert not head.flow(torch.randn(3, 5, DIM), SIDE, SIDE).any()


def test_it_learns_to_read_the_displacement_from_the_states():
    torch.manual_seed(0)
    head = Flow(DIM, GRID)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for step in range(80):
        thumbnails, steps = moving(8, 4, seed=step)
        result = head(telling(steps), thumbnails)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    thumbnails, steps = moving(16, 4, seed=10**6)
    states = telling(steps)
    assert head(states, thumbnails).scores.mean() > 0.6
    flow = head.flow(states[:, 1:].flatten(0, 1), SIDE, SIDE).mean((-1, -2))
    assert (flow + steps[:, 1:].flatten(0, 1)).abs().mean() < 0.4


@torch.no_grad()
def test_the_score_is_the_share_of_the_change_that_is_explained_clip_by_clip():
    thumbnails, _ = moving(3, 4, seed=5)
    head, states = lively(), torch.randn(3, 4, 5, DIM)
    result, frames = head(states, thumbnails), thumbnails.float() / 127.5 - 1
    for clip in range(3):
        left = plain = 0.0
        for frame in range(1, 4):
            before, after = frames[clip, frame - 1 : frame], frames[clip, frame : frame + 1]
            flow = head.flow(states[clip, frame : frame + 1], SIDE, SIDE)
            left += float((warp(before, flow) - after).abs().mean())
            plain += float((before - after).abs().mean())
        assert float(result.scores[clip]) == pytest.approx(1 - left / plain, abs=1e-4)


def test_a_clip_that_stands_still_gives_finite_loss_and_gradient():
    thumbnails = torch.full((2, 3, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    head, states = lively(), torch.randn(2, 3, 5, DIM, requires_grad=True)
    result = head(states, thumbnails)
    result.loss.backward()
    assert result.scores.isfinite().all()
    assert states.grad is not None
    assert states.grad.isfinite().all()


def test_only_tokens_of_the_picture_after_the_first_frame_are_read():
    thumbnails, _ = moving(2, 3, seed=6)
    head, states = lively(), torch.randn(2, 3, 5, DIM)
    changed = states.clone()
    changed[:, 0] = 5.0  # nothing is known about the frame before the first
    changed[:, :, -1] = 5.0  # sound
    assert torch.equal(head(states, thumbnails).loss, head(changed, thumbnails).loss)


def test_flow_of_other_sizes_is_scaled_with_the_height():
    head, states = lively(), torch.randn(2, 5, DIM)
    small, large = head.flow(states, 16, 16), head.flow(states, 32, 32)
    assert large.shape == (2, 2, 32, 32)
    torch.testing.assert_close(large.mean((-1, -2)), 2 * small.mean((-1, -2)), atol=1e-4, rtol=1e-4)


def test_the_smooth_absolute_value_is_one():
    difference = torch.tensor([-2.0, -0.1, 0.0, 0.5])
    torch.testing.assert_close(charbonnier(difference), difference.abs(), atol=1.1e-3, rtol=0)


def test_a_slope_of_the_flow_costs_less_where_the_picture_has_an_edge():
    flow = torch.zeros(1, 2, 8, 8)
    flow[..., 4:] = 1.0
    plain, edged = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edged[..., 4:] = 1.0
    assert smoothness(flow, edged) < smoothness(flow, plain) / 5
    assert smoothness(torch.zeros(1, 2, 8, 8), plain) < 3e-3
