import pytest
import torch

from tests.worldmodel.tiny import random_codes, tiny_model, yes
from worldmodel.rollouts.next_frame import draw_numbers, imagine_frame
from worldmodel.rollouts.sampling import move_codes
from worldmodel.settings import SamplingSettings

CONTEXT = 4
GREEDY = SamplingSettings(temperature=[0.0])


def test_a_frame_is_drawn_from_the_teacher_forced_distribution_of_its_own_codes():
    model = tiny_model(sound=True)
    codes = random_codes(2, CONTEXT, model.num_codes)
    state, previous = model.states(codes, yes(2))[:, -1], codes[:, -1]
    frame = imagine_frame(model.decoder, state, previous, GREEDY)
    predicted = model.decoder(state, previous, frame)
    assert torch.equal(torch.cat([scale.logits.argmax(-1) for scale in predicted], 1), frame)


@pytest.mark.parametrize("moved_scales", [0, 1, 2, 3])
def test_the_finest_scales_move_together_and_the_others_are_drawn(moved_scales: int):
    model = tiny_model(sound=True)
    decoder, codes = model.decoder, random_codes(8, CONTEXT, model.num_codes)
    state, previous = model.states(codes, yes(8))[:, -1], codes[:, -1]
    sampling = SamplingSettings(moved_scales=moved_scales)
    numbers = draw_numbers(previous, torch.Generator().manual_seed(3))
    frame, draw = imagine_frame(decoder, state, previous, sampling, numbers), numbers[:, :1]
    moved = []
    for level, scale in enumerate(decoder(state, previous, frame)):
        old = previous[:, decoder.slices[level]]
        codes_moved = move_codes(scale.logits, sampling, level, decoder.vectors(level), old, draw)
        moved.append(torch.equal(codes_moved, frame[:, decoder.slices[level]]))
    assert moved == [level >= 3 - moved_scales for level in range(3)] + [False, False]


@torch.no_grad()
def test_a_frame_is_told_by_its_numbers_and_draws_none_itself():
    model = tiny_model(sound=True)
    codes = random_codes(2, CONTEXT, model.num_codes)
    state, previous = model.states(codes, yes(2))[:, -1], codes[:, -1]
    numbers, drawn = draw_numbers(previous, torch.Generator().manual_seed(0)), SamplingSettings(moved_scales=0)
    before = torch.get_rng_state()
    frame = imagine_frame(model.decoder, state, previous, drawn, numbers)
    assert torch.equal(frame, imagine_frame(model.decoder, state, previous, drawn, numbers))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(frame, imagine_frame(model.decoder, state, previous, drawn, 1 - numbers))
    assert not torch.equal(frame, imagine_frame(model.decoder, state, previous, drawn))  # which draws some


def test_there_is_a_number_for_every_code_and_one_that_all_share():
    numbers = draw_numbers(torch.zeros(500, 20, dtype=torch.long), torch.Generator().manual_seed(0))
    assert numbers.shape == (500, 21)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.02)  # seven standard deviations
