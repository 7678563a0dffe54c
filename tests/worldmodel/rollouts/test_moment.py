import torch

from tests.worldmodel.tiny import MODEL, random_codes, tiny_model, yes
from worldmodel.rollouts.moment import Moment
from worldmodel.rollouts.next_frame import draw_numbers, imagine_frame
from worldmodel.settings import SamplingSettings

DRAWN = SamplingSettings(moved_scales=0)


@torch.no_grad()
def test_moments_follow_each_other_as_whole_clips_are_read():
    model = tiny_model(sound=True)
    codes, has_sound = random_codes(2, 3, model.num_codes), torch.tensor([True, False])
    moment = Moment.after(model, codes, has_sound)
    for _ in range(2 * MODEL.window_frames):
        state = model.states(codes, has_sound)[:, -1]
        torch.testing.assert_close(moment.state, state, atol=1e-5, rtol=1e-5)
        numbers = draw_numbers(moment.codes)
        frame, decoded = moment.imagine(model, DRAWN, numbers)
        assert torch.equal(frame, imagine_frame(model.decoder, state, codes[:, -1], DRAWN, numbers))
        moment.move_on(model, frame, decoded)
        assert torch.equal(moment.codes, frame)
        codes = torch.cat((codes, frame[:, None]), 1)


@torch.no_grad()
def test_rollouts_of_one_prompt_begin_at_the_same_moment_and_part_by_their_numbers():
    model = tiny_model()
    moment = Moment.after(model, random_codes(2, 3, model.num_codes), yes(2), num_rollouts=3)
    assert (moment.codes.unflatten(0, (2, 3)) == moment.codes.unflatten(0, (2, 3))[:, :1]).all()
    assert (moment.state.unflatten(0, (2, 3)) == moment.state.unflatten(0, (2, 3))[:, :1]).all()
    frame, decoded = moment.imagine(model, DRAWN, draw_numbers(moment.codes, torch.Generator().manual_seed(0)))
    moment.move_on(model, frame, decoded)
    assert len(moment.codes.unique(dim=0)) > 2
