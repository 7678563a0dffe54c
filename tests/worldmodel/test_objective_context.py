"""The contexts that the objective predicts from: true, corrupted, shortened, or the model's own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worldmodel.test_objective import ALL, NUM_PICTURE, OFF, batch_of, objective_of
from worldmodel.objective import corrupt
from worldmodel.rollouts.next_frame import imagine_frame


def test_corruption_replaces_up_to_its_share_by_codes_of_the_scale():
    codes = torch.full((400, 10, 20), 5)
    vocabularies = torch.cat((torch.full((10,), 8), torch.full((10,), 100)))
    changed = corrupt(codes, 0.4, vocabularies)
    assert changed.dtype == codes.dtype
    assert changed[..., :10].max() == 7
    assert changed[..., 10:].max() == 99
    assert changed.min() == 0
    shares = (changed != codes).float()
    # The strength of a frame is uniform up to the share, so a half of it on average; a draw may hit the same code.
    assert float(shares[..., 10:].mean()) == pytest.approx(0.2 * 0.99, abs=0.01)
    assert float(shares[..., :10].mean()) == pytest.approx(0.2 * 7 / 8, abs=0.01)
    per_frame = shares.mean(-1)
    assert per_frame.std() > 0.1  # frames differ in strength, beyond chance (0.09)
    assert corrupt(codes, 0.0, vocabularies) is codes


def test_only_the_context_is_corrupted_and_only_while_training(monkeypatch: pytest.MonkeyPatch):
    objective, batch = objective_of(replace(ALL, context_noise=0.9)), batch_of(2)
    seen = []
    forward = objective.model.decoder.forward

    def watched(state: Tensor, previous: Tensor, codes: Tensor) -> Any:
        seen.append((previous, codes))
        return forward(state, previous, codes)

    monkeypatch.setattr(objective.model.decoder, "forward", watched)
    objective.train()(batch)
    objective.eval()(batch)
    codes = torch.cat((batch.picture, batch.sound), 2)
    (noisy, target), (clean, same) = seen
    assert torch.equal(target, codes[:, 1:].flatten(0, 1))
    assert torch.equal(same, target)
    assert torch.equal(clean, codes[:, :-1].flatten(0, 1))
    assert not torch.equal(noisy, clean)


def test_a_share_of_the_clips_is_predicted_from_the_last_frame_alone_and_only_while_training(
    monkeypatch: pytest.MonkeyPatch,
):
    objective, batch = objective_of(replace(ALL, drop_past=0.5)), batch_of(4)
    seen, forward = [], objective.model.decoder.forward
    monkeypatch.setattr(objective.model.decoder, "forward", lambda *given: seen.append(given[0]) or forward(*given))
    for mode in (True, False):
        objective.train(mode)(batch)
    codes = torch.cat((batch.picture, batch.sound), 2)
    with torch.no_grad():
        whole = objective.model.states(codes, batch.has_sound)[:, :-1]
        alone = [objective.model.states(codes[:, t : t + 1], batch.has_sound)[:, 0] for t in range(whole.shape[1])]
    dropped, kept = (state.detach().unflatten(0, whole.shape[:2]) for state in seen)
    torch.testing.assert_close(kept, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dropped[:2], whole[:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dropped[2:], torch.stack(alone, 1)[2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("troubled", [{"context_noise": 0.9}, {"own_context": 1.0, "own_context_from": 0.0}])
def test_mismatched_views_have_the_same_pictures_as_the_matched_ones(troubled: dict, monkeypatch: pytest.MonkeyPatch):
    # Else a head could tell them apart by whether the pictures are corrupted, without listening.
    heads = replace(OFF, correspondence=1.0, mismatched_share=1.0)
    objective, batch = objective_of(replace(ALL, **troubled), heads).train(), batch_of(4)
    states, seen = objective.model.states, []

    def watched(codes: Tensor, has_sound: Tensor, group: None) -> Tensor:
        seen.append(codes)
        return states(codes, has_sound, group)

    monkeypatch.setattr(objective.model, "states", watched)
    objective(batch)
    *_, together, views = seen
    apart = views[-len(together) :]  # the last of the views
    assert not torch.equal(together[..., :NUM_PICTURE], batch.picture)
    assert torch.equal(apart[..., :NUM_PICTURE], together[..., :NUM_PICTURE])
    assert torch.equal(apart[..., NUM_PICTURE:], together[..., NUM_PICTURE:].roll(1, 0))


@torch.no_grad()
def test_own_context_begins_at_its_share_of_the_run(monkeypatch: pytest.MonkeyPatch):
    objective = objective_of(replace(ALL, own_context=1.0, own_context_from=0.6)).train()
    calls = []
    monkeypatch.setattr("worldmodel.objective.imagine_frame", lambda *given: calls.append(1) or imagine_frame(*given))
    for share_done, expected in ((0.0, 0), (0.59, 0), (0.6, 1), (0.99, 2)):
        objective.share_done = share_done
        _, metrics = objective(batch_of(2))
        assert len(calls) == expected
        assert metrics["next/own_context"] == (share_done >= 0.6)


def test_the_share_of_clips_with_own_context_is_right_on_average():
    objective = objective_of(replace(ALL, own_context=0.3, own_context_from=0.0)).train()
    numbers = [objective._num_own(4) for _ in range(2000)]
    assert set(numbers) == {1, 2}
    assert sum(numbers) / len(numbers) == pytest.approx(1.2, abs=0.05)
    assert objective.eval()._num_own(4) == 0


def test_own_context_is_what_a_rollout_would_show_and_is_asked_for_the_true_frames_after_it(
    monkeypatch: pytest.MonkeyPatch,
):
    settings = replace(ALL, own_context=0.5, own_context_from=0.0)  # all frames are decoded, in their order
    objective, batch = objective_of(settings, replace(OFF, flow=1.0)).train(), batch_of(4)
    forward, warped, seen, judged, shown = objective.model.decoder.forward, objective.heads["flow"].forward, [], [], []

    def watched(state: Tensor, previous: Tensor, codes: Tensor) -> Any:
        seen.append((previous.unflatten(0, (4, -1)), codes.unflatten(0, (4, -1))))
        return forward(state, previous, codes)

    def imagined(decoder: Any, state: Tensor, previous: Tensor, sampling: Any) -> Tensor:
        shown.append((previous.unflatten(0, (2, -1)), imagine_frame(decoder, state, previous, sampling)))
        return shown[-1][1]

    monkeypatch.setattr(objective.model.decoder, "forward", watched)
    monkeypatch.setattr(objective.heads["flow"], "forward", lambda *given: judged.append(given) or warped(*given))
    monkeypatch.setattr("worldmodel.objective.imagine_frame", imagined)
    objective(batch)
    codes = torch.cat((batch.picture, batch.sound), 2)
    (seeds, own), (previous, target) = shown[0], seen[0]
    assert torch.equal(target, codes[:, 1:])
    assert torch.equal(previous[2:], codes[2:, :-1])  # the other half of the clips
    assert torch.equal(seeds[:, 1:], codes[:2, :-2])
    assert torch.equal(previous[:2, 0], codes[:2, 0])  # before the first frame there is none to imagine it from
    assert torch.equal(previous[:2, 1:], own.unflatten(0, (2, -1))[:, 1:])
    assert not torch.equal(previous[:2], codes[:2, :-1])
    assert torch.equal(judged[0][1], batch.thumbnails[2:])
    objective.eval()(batch)
    assert torch.equal(seen[-1][0], codes[:, :-1])


def test_imagining_under_autocast_takes_no_gradient_away():
    objective = objective_of(replace(ALL, own_context=0.5, own_context_from=0.0)).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(batch_of(4))
    loss.backward()
    without = [name for name, weight in objective.model.trunk.named_parameters() if weight.grad is None]
    assert without == []
