import pytest
import torch

from streams.settings import ClipSettings
from tests.worldmodel.tiny_run import tiny_run
from worldmodel.codecs.sound import SoundVQ
from worldmodel.evaluation.films import join_frames
from worldmodel.rollouts.sound_blocks import BLOCK_FRAMES, SHARED_FRAMES, SoundBlocks


@pytest.fixture(scope="module")
def codec() -> SoundVQ:
    found = tiny_run().sound
    assert found is not None
    return found


def codes_of(codec: SoundVQ, num_frames: int) -> torch.Tensor:
    entries = min(scale.vocabulary for scale in codec.pyramid.scales)
    return torch.randint(entries, (num_frames, codec.pyramid.num_codes), generator=torch.Generator().manual_seed(0))


def heard(codec: SoundVQ, codes: torch.Tensor, at_once: int) -> list[torch.Tensor]:
    blocks = SoundBlocks(codec)
    return [*(blocks.add(part) for part in codes.split(at_once)), blocks.finish()]


@pytest.mark.parametrize("num_frames", [1, BLOCK_FRAMES + SHARED_FRAMES - 1])
def test_what_fits_one_block_is_decoded_at_once(codec: SoundVQ, num_frames: int):
    codes = codes_of(codec, num_frames)
    whole = join_frames(codec.decode(codes[None])[0], codec.clips)
    torch.testing.assert_close(torch.cat(heard(codec, codes, 3)), whole)


@pytest.mark.parametrize("num_frames", [12, 13, 20, 37])
@pytest.mark.parametrize("at_once", [1, 5, 40])
def test_it_is_as_long_as_the_frames_however_they_come(codec: SoundVQ, num_frames: int, at_once: int):
    codes = codes_of(codec, num_frames)
    found = torch.cat(heard(codec, codes, at_once))
    assert len(found) == round(num_frames / codec.clips.frames_per_second * codec.clips.sample_hz)
    torch.testing.assert_close(found, torch.cat(heard(codec, codes, num_frames)))


def test_where_frames_have_no_whole_number_of_samples_nothing_drifts(codec: SoundVQ, monkeypatch: pytest.MonkeyPatch):
    clips = ClipSettings(frames_per_second=7.0, sample_hz=8000)
    monkeypatch.setattr(codec, "clips", clips)
    monkeypatch.setattr(codec, "decode", lambda codes: torch.ones(1, codes.shape[1], clips.samples_per_frame))
    found = torch.cat(heard(codec, codes_of(codec, 70), 1))
    assert len(found) == 80000
    # Between two frames there may be a sample that is nobody's.
    assert (found > 0).float().mean() > 0.999


def test_blocks_fade_into_each_other(codec: SoundVQ, monkeypatch: pytest.MonkeyPatch):
    levels = iter((0.0, 1.0))

    def constant(codes: torch.Tensor) -> torch.Tensor:
        return torch.full((1, codes.shape[1], codec.clips.samples_per_frame), next(levels))

    monkeypatch.setattr(codec, "decode", constant)
    found = torch.cat(heard(codec, codes_of(codec, BLOCK_FRAMES + SHARED_FRAMES), 99))
    samples = codec.clips.samples_per_frame
    assert (found[: BLOCK_FRAMES * samples] == 0).all()
    assert len(found) == (BLOCK_FRAMES + SHARED_FRAMES) * samples
    faded = found[BLOCK_FRAMES * samples :]
    torch.testing.assert_close(faded, torch.linspace(0, 1, len(faded)))


def test_sound_is_told_as_soon_as_it_is_final(codec: SoundVQ):
    frames = [round(len(part) / codec.clips.samples_per_frame) for part in heard(codec, codes_of(codec, 30), 1)]
    assert frames[:12] == [0] * 11 + [BLOCK_FRAMES]
    assert max(frames) == BLOCK_FRAMES
    assert sum(frames) == 30
