import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.worldmodel.tiny import MODEL, QUANTIZER, VOCABULARY, random_codes, tiny_model, tiny_quantizer
from worldmodel.cache.latents import CodeBatch
from worldmodel.model import WorldModel
from worldmodel.objective import BASE_DIM, HEADS, WorldObjective, cross_entropy
from worldmodel.settings import HeadSettings

NUM_FRAMES, NUM_PICTURE, NUM_SOUND = 8, 21, 5
ALL = replace(MODEL, decoded_frames=0, own_context=0.0, context_noise=0.0)
OFF = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)
ON = HeadSettings(view_share=1.0, mismatched_share=1.0)


def batch_of(
    num_clips: int = 4, num_sound: int = NUM_SOUND, silent: tuple[int, ...] = (), **parts: Tensor
) -> CodeBatch:
    """Random codes, or those given."""
    has_sound = torch.ones(num_clips, dtype=torch.bool)
    has_sound[list(silent)] = False
    made = {
        "picture": random_codes(num_clips, NUM_FRAMES, NUM_PICTURE),
        "reversed": random_codes(num_clips, NUM_FRAMES, NUM_PICTURE, seed=1),
        "fast": random_codes(num_clips, NUM_FRAMES // 2, NUM_PICTURE, seed=2),
        "sound": random_codes(num_clips, NUM_FRAMES, num_sound, seed=3),
        "thumbnails": torch.randint(0, 256, (num_clips, NUM_FRAMES, 3, 16, 16)).byte(),
        "has_sound": has_sound,
    }
    return CodeBatch(**(made | parts))


def objective_of(settings: Any = ALL, heads: HeadSettings = OFF, sound: bool = True) -> WorldObjective:
    objective = WorldObjective(tiny_model(settings, sound), heads).eval()
    if "flow" in objective.heads:
        torch.nn.init.normal_(objective.heads["flow"].layers[2].weight)  # type: ignore[union-attr,index]
    return objective


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_codes_of_what_the_decoder_says():
    objective, batch = objective_of(), batch_of(2)
    loss, metrics = objective(batch)
    codes = torch.cat((batch.picture, batch.sound), 2)
    states = objective.model.states(codes, batch.has_sound)
    nats, errors = [], []
    for clip in range(2):
        for frame in range(NUM_FRAMES - 1):
            target = codes[clip, frame + 1][None]
            predictions = objective.model.decoder(states[clip, frame][None], codes[clip, frame][None], target)
            for prediction, columns in zip(predictions, objective.model.decoder.slices, strict=True):
                nats.append(-F.log_softmax(prediction.logits, -1)[0].gather(1, target[0, columns, None])[:, 0])
                errors.append(prediction.error[0])
    mean_nats, mean_error = torch.cat(nats).mean(), torch.cat(errors).mean()
    torch.testing.assert_close(loss, mean_nats + MODEL.guess_weight * mean_error)
    bits = mean_nats * (NUM_PICTURE + NUM_SOUND) / math.log(2)
    torch.testing.assert_close(metrics["next/bits_per_frame"], bits)


@torch.no_grad()
def test_the_z_loss_is_the_mean_square_of_the_logarithm_of_the_softmax_sum():
    batch, plain, bounded = batch_of(2), objective_of(), objective_of(replace(ALL, z_weight=0.25))
    codes = torch.cat((batch.picture, batch.sound), 2)
    states = plain.model.states(codes, batch.has_sound)
    target = codes[:, 1:].flatten(0, 1)
    predictions = plain.model.decoder(states[:, :-1].flatten(0, 1), codes[:, :-1].flatten(0, 1), target)
    log_z = torch.cat([prediction.logits.logsumexp(-1) for prediction in predictions], 1)
    (loss, metrics), (without, _) = bounded(batch), plain(batch)
    torch.testing.assert_close(metrics["next/log_z"], log_z.mean())
    torch.testing.assert_close(loss - without, 0.25 * log_z.square().mean())


@torch.no_grad()
def test_codes_of_clips_without_sound_are_not_counted():
    objective, batch = objective_of(), batch_of(3, silent=(1,))
    other = replace(batch, sound=batch.sound.clone())
    other.sound[1] = random_codes(NUM_FRAMES, NUM_SOUND, seed=9)
    (loss, metrics), (same, same_metrics) = objective(batch), objective(other)
    torch.testing.assert_close(loss, same)
    torch.testing.assert_close(metrics, same_metrics, equal_nan=True)
    heard = replace(other, has_sound=torch.ones(3, dtype=torch.bool))
    assert not torch.equal(objective(heard)[0], loss)


@torch.no_grad()
def test_bits_are_told_apart_by_whether_a_code_changes_and_by_scale():
    objective, batch = objective_of(sound=False), batch_of(2, num_sound=0)
    picture = batch.picture[:, :1].repeat(1, NUM_FRAMES, 1)
    picture[:, 4:, 10:] = (picture[:, 4:, 10:] + 1) % VOCABULARY  # 11 codes change once
    _, metrics = objective(replace(batch, picture=picture))
    assert float(metrics["next/changed"]) == pytest.approx(11 / (21 * 7))
    bits_per_code = float(metrics["next/bits_per_frame"]) / NUM_PICTURE
    share = 11 / (21 * 7)
    mixed = share * metrics["next/bits_changed"] + (1 - share) * metrics["next/bits_still"]
    assert float(mixed) == pytest.approx(bits_per_code, rel=1e-4)
    sizes = {0: 1, 1: 4, 2: 16}
    total = sum(size * float(metrics[f"next/bits_picture_{scale}"]) for scale, size in sizes.items())
    assert total == pytest.approx(float(metrics["next/bits_per_frame"]), rel=1e-4)


@torch.no_grad()
def test_an_untrained_model_that_copies_is_nearly_sure_of_a_clip_that_stands_still():
    objective = WorldObjective(tiny_model(replace(ALL, copy_bias=12.0), lively=False), OFF).eval()
    still = random_codes(2, 1, NUM_PICTURE).repeat(1, NUM_FRAMES, 1)
    _, metrics = objective(batch_of(2, num_sound=0, picture=still))
    # The copy path adds 12 to one logit; the guess adds a little noise.
    assert metrics["next/bits_per_frame"] < NUM_PICTURE * 0.02
    assert metrics["next/bits_changed"].isnan()  # nothing changes, so it is not measured
    assert metrics["next/changed"] == 0


def test_a_coin_per_frame_costs_one_bit():
    # Each frame is one of two pictures by the fall of a coin: the coarsest code says which, all others follow from it.
    torch.manual_seed(0)
    objective = WorldObjective(tiny_model(ALL, lively=False), OFF).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    sides = torch.stack((torch.full((NUM_PICTURE,), 3), torch.full((NUM_PICTURE,), 11)))

    def coins(count: int) -> CodeBatch:
        return batch_of(count, num_sound=0, picture=sides[torch.randint(2, (count, NUM_FRAMES))])

    before = objective(coins(16))[1]["next/bits_per_frame"]
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 80)
        loss, _ = objective(coins(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        bits = objective.eval()(coins(128))[1]["next/bits_per_frame"]
    assert before > 10
    assert 0.95 < bits < 1.3


def test_onlydrawn_frames_are_decoded_while_training_and_all_when_evaluating(monkeypatch: pytest.MonkeyPatch):
    objective, batch = objective_of(replace(ALL, decoded_frames=3)), batch_of(2)
    forward, sizes = objective.model.decoder.forward, []

    def counted(state: Tensor, previous: Tensor, codes: Tensor) -> Any:
        sizes.append(len(state))
        return forward(state, previous, codes)

    monkeypatch.setattr(objective.model.decoder, "forward", counted)
    objective.train()(batch)
    objective.eval()(batch)
    assert sizes == [2 * 3, 2 * (NUM_FRAMES - 1)]


@torch.no_grad()
def testdrawn_frames_are_frames_of_the_clip_and_every_one_is_drawn():
    objective, batch = objective_of(replace(ALL, decoded_frames=2)), batch_of(1)
    codes = torch.cat((batch.picture, batch.sound), 2)
    states = objective.model.states(codes, batch.has_sound)
    whole = objective.next_frame(states, codes, codes, batch.has_sound)
    totals, drawn = whole.nats[0].sum(-1), set()
    for _ in range(20):
        frames = objective.drawn_frames(codes)
        some = objective.next_frame(states, codes, codes, batch.has_sound, frames).nats[0].sum(-1)
        found = (some[:, None] - totals).abs().argmin(1)
        torch.testing.assert_close(some, totals[found])
        assert len(set(found.tolist())) == 2
        drawn |= set(found.tolist())
    assert drawn == set(range(NUM_FRAMES - 1))


def test_a_gradient_reaches_trunk_decoder_and_heads_but_never_the_codecs():
    objective, batch = objective_of(heads=ON).train(), batch_of(4)
    objective(batch)[0].backward()
    without = [name for name, weight in objective.named_parameters() if weight.grad is None]
    assert without
    assert all(".quantizers." in name or "input" in name or "quantizer" in name for name in without), without
    reached = {name for name, weight in objective.named_parameters() if weight.grad is not None and weight.grad.any()}
    for part in ("model.trunk", "model.decoder.readouts", "model.embeddings", *(f"heads.{head}" for head in HEADS)):
        assert any(name.startswith(part) for name in reached), part
    assert not [name for name, weight in objective.model.quantizers.named_parameters() if weight.requires_grad]


@pytest.mark.parametrize("silent", [(), (0, 1, 2), (0, 1, 2, 3)])
def test_every_weight_has_a_gradient_whoever_has_sound(silent: tuple[int, ...]):
    # Else processes whose clips have sound would wait for those whose clips have none.
    objective = objective_of(heads=HeadSettings()).train()
    loss, metrics = objective(batch_of(4, silent=silent))
    loss.backward()
    assert not [name for name, weight in objective.named_parameters() if weight.requires_grad and weight.grad is None]
    assert (metrics["correspondence/loss"] > 0) == (silent == ())


def test_the_hidden_matrices_are_those_of_the_blocks():
    objective = objective_of(heads=ON)
    chosen = {id(matrix) for matrix in objective.hidden_matrices()}
    names = {name for name, weight in objective.named_parameters() if id(weight) in chosen}
    expected = {name for name, weight in objective.named_parameters() if ".blocks." in name and "norm" not in name}
    assert names == expected
    assert len(names) == 5 * (MODEL.trunk.depth + MODEL.decoder.depth)


def test_wide_matrices_are_those_that_sum_over_the_trunks_channels():
    objective = objective_of(heads=ON)
    chosen, ratio = objective.wide_matrices()
    names = {name: weight for name, weight in objective.named_parameters() if any(weight is one for one in chosen)}
    dim = MODEL.trunk.dim
    assert ratio == BASE_DIM / dim
    assert len(names) == len(chosen)
    assert all(weight.shape[1] % dim == 0 for weight in names.values())
    assert {id(one) for one in objective.hidden_matrices()} <= {id(one) for one in chosen}
    left = {name for name, weight in objective.named_parameters() if weight.ndim >= 2 and name not in names}
    # Convolutions over latents, rows that stand for a scale, and the codecs.
    convolutions = ("compare.weight", "project.weight", "mix.weight", ".scale")
    assert all(name.endswith(convolutions) or "quantizers" in name for name in left), left


def test_training_moves_no_codebook():
    objective, batch = objective_of(heads=ON).train(), batch_of(4)
    before = {name: value.clone() for name, value in objective.model.quantizers.state_dict().items()}
    optimizer = torch.optim.AdamW([weight for weight in objective.parameters() if weight.requires_grad], lr=1e-2)
    objective(batch)[0].backward()
    optimizer.step()
    for name, value in objective.model.quantizers.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["vq", "fsq", "bsq"])
def test_the_codes_of_every_kind_of_quantizer_can_be_learned(kind: Any):
    torch.manual_seed(0)
    model = WorldModel(ALL, tiny_quantizer(replace(QUANTIZER, kind=kind)), None)
    objective = WorldObjective(model, OFF).train()
    batch = batch_of(4, num_sound=0)
    optimizer = torch.optim.Adam([weight for weight in objective.parameters() if weight.requires_grad], lr=5e-3)
    losses = []
    for _ in range(15):
        loss, _ = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("head", HEADS[1:])
@torch.no_grad()
def test_a_view_feeds_its_own_head_and_no_other(head: str):
    objective, batch = objective_of(heads=ON), batch_of(4)
    changed = {
        "arrow_of_time": replace(batch, reversed=random_codes(4, NUM_FRAMES, NUM_PICTURE, seed=7)),
        "speed": replace(batch, fast=random_codes(4, NUM_FRAMES // 2, NUM_PICTURE, seed=7)),
        "correspondence": replace(batch, sound=random_codes(4, NUM_FRAMES, NUM_SOUND, seed=7)),
    }[head]
    before, after = objective(batch)[1], objective(changed)[1]
    differ = {name.split("/")[0] for name in before if not torch.equal(before[name], after[name])}
    # Sound is part of what the next frame and flow are told from.
    assert differ == ({head} if head != "correspondence" else {head, "next", "flow"})


@torch.no_grad()
def test_each_head_is_given_the_views_it_is_named_after(monkeypatch: pytest.MonkeyPatch):
    objective, batch = objective_of(heads=ON), batch_of(4)
    seen = {}
    for name in HEADS[1:]:
        run = objective.heads[name].forward

        def watched(one: Tensor, other: Tensor, name: str = name, run: Any = run) -> Any:
            seen[name] = (one, other)
            return run(one, other)

        monkeypatch.setattr(objective.heads[name], "forward", watched)
    objective(batch)
    mute = torch.zeros(4, dtype=torch.bool)
    states = objective.model.states
    forwards = states(torch.cat((batch.picture, batch.sound), 2), mute)
    backwards = states(torch.cat((batch.reversed, batch.sound), 2), mute)
    fast = states(torch.cat((batch.fast, batch.sound[:, : NUM_FRAMES // 2]), 2), mute)
    heard = states(torch.cat((batch.picture, batch.sound), 2), ~mute)
    apart = states(torch.cat((batch.picture, batch.sound.roll(1, 0)), 2), ~mute)
    expected = {
        "arrow_of_time": (forwards, backwards),
        "speed": (forwards[:, : NUM_FRAMES // 2], fast),
        "correspondence": (heard, apart),
    }
    for name, views in expected.items():
        for view, found in zip(views, seen[name], strict=True):
            torch.testing.assert_close(found, view, msg=name)


@torch.no_grad()
def test_muted_views_ignore_the_sound_and_whether_there_is_any():
    objective, batch = objective_of(heads=ON), batch_of(4)
    other = replace(
        batch,
        sound=random_codes(4, NUM_FRAMES, NUM_SOUND, seed=8),
        has_sound=torch.tensor([True, False, True, False]),
    )
    before, after = objective(batch)[1], objective(other)[1]
    for head in ("arrow_of_time", "speed"):
        assert torch.equal(before[f"{head}/loss"], after[f"{head}/loss"])
        assert torch.equal(before[f"{head}/score"], after[f"{head}/score"])


@torch.no_grad()
def test_views_are_made_of_the_settings_share_of_the_batch():
    batch = batch_of(8)
    objective = objective_of(heads=replace(ON, view_share=0.25, mismatched_share=0.5))
    codes = torch.cat((batch.picture, batch.sound), 2)
    states = objective.model.states(codes, batch.has_sound)
    results = objective.head_results(batch, states, codes)
    assert {name: len(result.scores) for name, result in results.items()} == {
        "flow": 8, "arrow_of_time": 4, "speed": 4, "correspondence": 8 + 4,
    }  # fmt: skip
    everything = objective.head_results(batch, states, codes, 8)
    assert [len(everything[head].scores) for head in ("speed", "correspondence")] == [16, 16]


@pytest.mark.parametrize("silent", [(0, 1, 2, 3), (0, 1, 3)])
def test_with_fewer_than_two_clips_with_sound_correspondence_is_not_measured(silent: tuple[int, ...]):
    heads = replace(OFF, correspondence=1.0)
    with_head, without = objective_of(heads=heads), objective_of()
    batch = batch_of(4, silent=silent)
    loss, metrics = with_head(batch)
    assert metrics["correspondence/score"].isnan()
    assert metrics["correspondence/loss"] == 0
    torch.testing.assert_close(loss, without(batch)[0])
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in with_head.parameters())


@torch.no_grad()
def test_clips_without_sound_lend_none_and_borrow_none(monkeypatch: pytest.MonkeyPatch):
    objective, batch = objective_of(heads=ON), batch_of(5, silent=(1, 4))
    other = replace(batch, sound=batch.sound.clone())
    other.sound[[1, 4]] = 0
    assert torch.equal(objective(batch)[1]["correspondence/loss"], objective(other)[1]["correspondence/loss"])
    codes = torch.cat((batch.picture, batch.sound), 2)
    states = objective.model.states(codes, batch.has_sound)
    assert len(objective.head_results(batch, states, codes)["correspondence"].scores) == 2 * 3


def test_the_names_of_metrics_are_the_same_whatever_is_in_the_batch():
    objective = objective_of(heads=ON)
    still = random_codes(4, 1, NUM_PICTURE).repeat(1, NUM_FRAMES, 1)
    batches = [batch_of(4), batch_of(4, silent=(0, 1, 2, 3)), batch_of(4, picture=still), batch_of(1)]
    names = [set(mode(batch)[1]) for batch in batches for mode in (objective.eval(), objective.train())]
    assert all(found == names[0] for found in names)
    assert {f"{head}/{what}" for head in HEADS for what in ("loss", "score", "chance")} <= names[0]
    assert {"next/bits_picture_2", "next/bits_sound_1", "next/right_changed"} <= names[0]


def test_a_head_of_weight_zero_is_not_there_and_without_sound_there_is_no_correspondence():
    for head in HEADS:
        objective = objective_of(heads=replace(ON, **{head: 0.0}))
        assert set(objective.heads) == set(HEADS) - {head}
    objective = objective_of(heads=ON, sound=False)
    assert set(objective.heads) == set(HEADS) - {"correspondence"}
    _, metrics = objective(batch_of(2, num_sound=0))
    assert not [name for name in metrics if "sound" in name or "correspondence" in name]


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_of_next_frame_and_heads():
    batch, total = batch_of(4), torch.zeros(())
    heads = HeadSettings(
        flow=0.3, speed=0.7, arrow_of_time=0.2, correspondence=0.9, view_share=1.0, mismatched_share=1.0
    )
    loss, metrics = objective_of(heads=heads)(batch)
    total = objective_of()(batch)[0] + sum(getattr(heads, head) * metrics[f"{head}/loss"] for head in HEADS)
    torch.testing.assert_close(loss, total)


def test_the_heads_learn_views_that_can_be_told_apart():
    torch.manual_seed(0)
    objective = WorldObjective(tiny_model(ALL, sound=True), replace(ON, flow=0.0)).train()
    optimizer = torch.optim.Adam([weight for weight in objective.parameters() if weight.requires_grad], lr=3e-3)

    def counting(seed: int) -> CodeBatch:
        """Codes count up, by one or (hurried) by two, or (reversed) down; the sound counts with its picture."""
        first = random_codes(8, 1, 1, seed=seed)
        ticks = torch.arange(NUM_FRAMES)[None, :, None]
        forwards, backwards = (first + ticks) % VOCABULARY, (first - ticks) % VOCABULARY
        return batch_of(
            8,
            picture=forwards.expand(-1, -1, NUM_PICTURE),
            reversed=backwards.expand(-1, -1, NUM_PICTURE),
            fast=((first + 2 * ticks[:, : NUM_FRAMES // 2]) % VOCABULARY).expand(-1, -1, NUM_PICTURE),
            sound=forwards.expand(-1, -1, NUM_SOUND),
        )

    for step in range(40):
        loss, _ = objective(counting(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        metrics = [objective.eval()(counting(10**6 + number))[1] for number in range(4)]
    for head in ("arrow_of_time", "speed"):
        assert sum(float(found[f"{head}/score"]) for found in metrics) / 4 > 0.9, head
        assert metrics[0][f"{head}/chance"] == 0.5


def test_the_cross_entropy_is_torchs():
    logits, target = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, target), expected)
