import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.worldmodel.tiny import MODEL, random_codes, tiny_model, yes
from worldmodel.decoder import DecoderCache
from worldmodel.layout import Pyramid, Scale
from worldmodel.model import ModelCache
from worldmodel.rollouts.moment import FrameModel
from worldmodel.rollouts.next_frame import draw_numbers
from worldmodel.rollouts.rollout import roll_out, roll_out_anew
from worldmodel.rollouts.sampling import sample_codes
from worldmodel.settings import SamplingSettings

GREEDY = SamplingSettings(temperature=[0.0])
CONTEXT = 4
HORIZON = 10 * MODEL.window_frames


def imagined(model: FrameModel, prompt: Tensor, num_frames: int, cached: bool, sampling: SamplingSettings) -> Tensor:
    """The frames that follow a prompt, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(5)
    by = roll_out if cached else roll_out_anew
    frames = by(model, prompt, yes(len(prompt)), sampling, generator)
    return torch.stack(list(itertools.islice(frames, num_frames)), 1)


@pytest.mark.parametrize(
    "sampling",
    [GREEDY, SamplingSettings(), SamplingSettings(moved_scales=3), SamplingSettings([0.8], [5], [0.9], 0)],
)
@pytest.mark.parametrize(("sound", "factorised"), [(False, False), (True, False), (True, True)])
def test_a_cached_rollout_equals_an_uncached_one_to_ten_windows_past_the_context(
    sound: bool, factorised: bool, sampling: SamplingSettings
):
    model = tiny_model(replace(MODEL, factorised=factorised), sound=sound)
    prompt = random_codes(2, CONTEXT, model.num_codes)
    cached = imagined(model, prompt, HORIZON, True, sampling)
    assert torch.equal(cached, imagined(model, prompt, HORIZON, False, sampling))
    # The model is lively, or equal rollouts would prove little: most frames differ from the one before.
    assert (cached[:, 1:] != cached[:, :-1]).any(-1).float().mean() > 0.5


def test_clips_in_a_batch_are_imagined_as_they_are_alone():
    model = tiny_model(sound=True)
    prompt = random_codes(3, CONTEXT, model.num_codes)
    alone = torch.cat([imagined(model, clip[None], 8, True, GREEDY) for clip in prompt])
    assert torch.equal(imagined(model, prompt, 8, True, GREEDY), alone)


def test_a_longer_rollout_continues_a_shorter_one():
    model = tiny_model()
    prompt = random_codes(1, CONTEXT, model.num_codes)
    longer = imagined(model, prompt, 6, True, SamplingSettings())
    assert torch.equal(imagined(model, prompt, 3, True, SamplingSettings()), longer[:, :3])


def test_imagining_what_was_imagined_continues_it():
    model = tiny_model()
    prompt = random_codes(1, CONTEXT, model.num_codes)
    whole = imagined(model, prompt, 8, True, GREEDY)
    again = imagined(model, torch.cat((prompt, whole[:, :3]), 1), 5, True, GREEDY)
    assert torch.equal(again, whole[:, 3:])


@pytest.mark.parametrize("cached", [True, False])
def test_a_prompt_of_one_frame_is_enough_and_a_prompt_is_never_changed(cached: bool):
    model = tiny_model()
    prompt = random_codes(2, 1, model.num_codes)
    before = prompt.clone()
    assert imagined(model, prompt, 5, cached, GREEDY).shape == (2, 5, model.num_codes)
    assert torch.equal(prompt, before)


def test_the_context_and_the_seed_matter():
    model = tiny_model()
    prompt = random_codes(1, CONTEXT, model.num_codes)
    other = prompt.clone()
    other[:, CONTEXT - 2] = random_codes(1, model.num_codes, seed=1)  # not the last frame: only the trunk has seen it
    assert not torch.equal(imagined(model, prompt, 3, True, GREEDY), imagined(model, other, 3, True, GREEDY))
    first, second = (
        next(roll_out(model, prompt, yes(1), SamplingSettings(moved_scales=0), torch.Generator().manual_seed(seed)))
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("preview_scales", [1, 2])
@torch.no_grad()
def test_a_preview_is_a_loop_over_the_coarsest_scales_that_keeps_the_others(preview_scales: int):
    model = tiny_model(sound=True)
    decoder, codes = model.decoder, random_codes(2, CONTEXT, model.num_codes)
    sampling = SamplingSettings(moved_scales=0, preview_scales=preview_scales)
    frames = imagined(model, codes, 3, True, sampling)
    generator, seen = torch.Generator().manual_seed(5), codes
    for frame in frames.unbind(1):
        state, expected = model.states(seen, yes(2))[:, -1], seen[:, -1].clone()
        numbers = draw_numbers(frame, generator)[:, 1:]  # behind what scales share
        for level in range(preview_scales):
            logits = decoder(state, seen[:, -1], expected)[level].logits
            columns = decoder.slices[level]
            expected[:, columns] = sample_codes(logits, sampling, level, numbers[:, columns])
        assert torch.equal(frame, expected)
        seen = torch.cat((seen, frame[:, None]), 1)
    assert (
        frames[:, :, decoder.slices[preview_scales].start :] == codes[:, -1:, 1 if preview_scales == 1 else 5 :]
    ).all()


@torch.no_grad()
def test_guidance_is_a_loop_over_scales_with_and_without_the_past():
    model = tiny_model(sound=True)
    decoder, codes = model.decoder, random_codes(2, CONTEXT, model.num_codes)
    (frame,) = imagined(model, codes, 1, True, replace(GREEDY, moved_scales=0, guidance=2.5)).unbind(1)
    previous, expected = codes[:, -1], torch.zeros_like(frame)
    states = model.states(codes, yes(2))[:, -1], model.states(codes[:, -1:], yes(2))[:, 0]
    for level, columns in enumerate(decoder.slices):
        logits, without = (decoder(state, previous, expected)[level].logits for state in states)
        expected[:, columns] = (2.5 * logits - 1.5 * without).argmax(-1)
    assert torch.equal(frame, expected)
    assert not torch.equal(frame, imagined(model, codes, 1, True, GREEDY)[:, 0])


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSettings(guidance=1.5)])
def test_rollouts_of_one_prompt_share_its_reading_and_are_those_of_as_many_prompts(
    sampling: SamplingSettings, monkeypatch: pytest.MonkeyPatch
):
    model = tiny_model(sound=True)
    prompt, reads, read = random_codes(2, CONTEXT, model.num_codes), [], model.read
    monkeypatch.setattr(model, "read", lambda codes, *given: reads.append(codes.shape[:2]) or read(codes, *given))
    frames = roll_out(model, prompt, yes(2), sampling, torch.Generator().manual_seed(5), num_rollouts=3)
    shared = torch.stack(list(itertools.islice(frames, 4)), 1)
    assert reads == [(2, CONTEXT)] + [(6, 1)] * 3  # no frame is read twice
    assert torch.equal(shared, imagined(model, prompt.repeat_interleave(3, 0), 4, True, sampling))
    assert torch.equal(shared, imagined(model, prompt.repeat_interleave(3, 0), 4, False, sampling))


def test_nothing_is_kept_for_a_gradient():
    model = tiny_model()
    cache = model.start()
    frames = roll_out(model, random_codes(1, 2, model.num_codes), yes(1), GREEDY)
    with torch.enable_grad():
        next(frames)
        assert torch.is_grad_enabled()
    assert cache.latents is None  # every rollout has a cache of its own


class CountingDecoder:
    """Says the number of frames seen, added to the first frame's number: one digit per code, coarse ones first."""

    def __init__(self) -> None:
        pyramid = Pyramid((Scale(1, 1, 3), Scale(2, 2, 3)))
        self.scales, self.slices, self.finest_level = list(pyramid.scales), list(pyramid.slices), 1

    def vectors(self, level: int) -> Tensor:
        return torch.eye(3)[None]

    def start(self, state: Tensor, before: list[Tensor] | None = None) -> DecoderCache:
        return DecoderCache()

    def step(self, state: Tensor, previous: Tensor, codes: Tensor, cache: DecoderCache) -> Tensor:
        """Sure logits of the next scale; checks what the rollout passes on."""
        columns = self.slices[cache.num_scales]
        first, num_seen = state[:, 0].long().unbind(1)
        digits = codes_of(first + num_seen)
        assert torch.equal(number_of(previous), first + num_seen - 1)  # the frame that was seen last
        assert torch.equal(codes[:, : columns.start], digits[:, : columns.start])  # the coarser digits
        cache.num_scales += 1
        return 100.0 * torch.nn.functional.one_hot(digits[:, columns], 3)


@dataclass
class CountingCache(ModelCache):
    first: Tensor | None = None


class CountingModel:
    """A frame model whose state is (the first frame's number, how many frames were seen).

    It fails where a frame does not show the number after the one before it: a rollout that feeds a frame twice, skips
    one, or keeps the oldest frames of a full window is found out.
    """

    def __init__(self) -> None:
        self.decoder = CountingDecoder()
        self.seen: list[float] = []

    def states(self, codes: Tensor, has_sound: Tensor) -> Tensor:
        numbers = number_of(codes)
        assert (numbers.diff(dim=1) == 1).all()
        num_seen = torch.arange(1, 1 + codes.shape[1]).expand_as(numbers)
        return torch.stack((numbers[:, :1].expand_as(numbers), num_seen), -1)[:, :, None].float()

    def start(self) -> CountingCache:
        return CountingCache()

    def step(self, codes: Tensor, has_sound: Tensor, cache: ModelCache, decoded: DecoderCache | None = None) -> Tensor:
        assert isinstance(cache, CountingCache)
        number = number_of(codes)
        cache.first = number if cache.first is None else cache.first
        assert torch.equal(number, cache.first + cache.trunk.num_frames)
        cache.trunk.num_frames = int(cache.trunk.num_frames) + 1
        self.seen.append(float(number[0]))
        return torch.stack((cache.first, torch.full_like(number, cache.trunk.num_frames)), -1)[:, None].float()

    def read(self, codes: Tensor, has_sound: Tensor, cache: ModelCache) -> Tensor:
        return [self.step(frame, has_sound, cache) for frame in codes.unbind(1)][-1]


def codes_of(numbers: Tensor) -> Tensor:
    """Five digits in base 3."""
    return torch.stack([numbers // 3**place % 3 for place in (4, 3, 2, 1, 0)], -1)


def number_of(codes: Tensor) -> Tensor:
    """What `codes_of` wrote."""
    return (codes * torch.tensor([3**place for place in (4, 3, 2, 1, 0)])).sum(-1)


@pytest.mark.parametrize("sampling", [GREEDY, *(SamplingSettings(moved_scales=number) for number in range(3))])
@pytest.mark.parametrize("cached", [True, False])
def test_a_frame_counting_oracle_counts_on_to_ten_windows_past_the_context(cached: bool, sampling: SamplingSettings):
    window, context = 8, 3
    starts = torch.tensor([0, 100])
    prompt = codes_of(starts[:, None] + torch.arange(context))
    frames = imagined(CountingModel(), prompt, 10 * window, cached, sampling)
    assert number_of(frames[0]).tolist() == list(range(3, 3 + 10 * window))
    assert number_of(frames[1]).tolist() == list(range(103, 103 + 10 * window))


def test_a_cached_rollout_shows_every_frame_to_the_model_exactly_once():
    model = CountingModel()
    imagined(model, codes_of(torch.arange(3)[None]), 10, True, GREEDY)
    assert model.seen == list(range(12))  # the last frame is shown only when another one is asked for
