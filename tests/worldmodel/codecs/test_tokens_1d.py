import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from streams.clip import to_float
from streams.physics.world import make_clip
from streams.settings import ClipSettings, PhysicsSettings
from tests.worldmodel.codecs.test_objective import batch_of
from worldmodel.codecs.objective import PictureObjective
from worldmodel.codecs.tokens_1d import PictureTokens, cosine_waves
from worldmodel.settings import QuantizerSettings, Tokens1dSettings, TransformerSettings

CLIPS = ClipSettings(height=32, width=32, num_frames=4)
SETTINGS = Tokens1dSettings(
    transformer=TransformerSettings(dim=32, depth=1, num_heads=2),
    quantizer=QuantizerSettings(grids=((1, 1), (1, 4), (1, 16)), vocabulary=64, dim=8, decay=0.9),
)
WORLD = PhysicsSettings(height=32, width=32, frames_per_second=10.0, max_discs=1, num_looks=2)
NUM_HELDOUT = 4


@pytest.fixture(scope="module")
def videos() -> Tensor:
    return torch.stack([torch.from_numpy(make_clip(WORLD, seed).frames) for seed in range(24)])


@pytest.fixture(scope="module")
def codec(videos: Tensor) -> PictureTokens:
    """After some seconds of training as the command trains."""
    torch.manual_seed(0)
    codec = PictureTokens(SETTINGS, CLIPS)
    objective = PictureObjective(codec).train()
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-3)
    training = videos[NUM_HELDOUT:]
    for _ in range(120):
        start = int(torch.randint(training.shape[1] - 4, ()))
        loss, _ = objective(batch_of(training[torch.randint(len(training), (6,)), start : start + 4]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return codec.eval()


@torch.no_grad()
def test_a_short_training_rebuilds_films_not_seen_and_longer_prefixes_rebuild_them_better(
    codec: PictureTokens, videos: Tensor
):
    heldout = to_float(videos[:NUM_HELDOUT])
    codes = codec.encode(heldout)
    errors = [float((codec.decode(codes, number) - heldout).square().mean()) for number in range(4)]
    decibels = [10 * math.log10(4 / error) for error in errors]
    assert all(longer > shorter + 0.5 for shorter, longer in itertools.pairwise(decibels)), decibels
    # What knows each film's mean picture, and so all of it but the disc that moves.
    still = float((heldout.mean(1, keepdim=True) - heldout).square().mean())
    assert errors[-1] < 0.7 * still, (decibels, 10 * math.log10(4 / still))


@torch.no_grad()
def test_without_cuts_in_training_a_prefix_is_not_what_the_decoder_knows(videos: Tensor):
    frames = to_float(videos[:1, :4]).flatten(0, 1)
    latent = torch.randn(len(frames), 8, 1, 16)
    for share, cut in ((0.0, False), (1.0, True)):
        torch.manual_seed(0)
        codec = PictureTokens(replace(SETTINGS, nested_dropout=share), CLIPS)
        whole = codec.eval().synthesise(latent)
        assert torch.equal(codec.train().synthesise(latent), whole) != cut


def test_rows_are_cut_where_scales_end_and_as_often_as_is_set():
    torch.manual_seed(0)
    codec = PictureTokens(replace(SETTINGS, nested_dropout=0.6), CLIPS)
    lengths = codec.cut(torch.full((6000,), 16))
    shares = {length: float((lengths == length).float().mean()) for length in lengths.unique().tolist()}
    assert shares == {
        1: pytest.approx(0.2, abs=0.03),
        4: pytest.approx(0.2, abs=0.03),
        16: pytest.approx(0.6, abs=0.03),
    }


@torch.no_grad()
def test_what_is_cut_off_is_not_seen_and_what_is_left_is():
    torch.manual_seed(0)
    codec = PictureTokens(SETTINGS, CLIPS).eval()
    latent, lengths = torch.randn(2, 8, 1, 16), torch.tensor([4, 16])
    frames = codec.decoder(latent, lengths)
    other = latent.clone()
    other[0, ..., 4:] = 9.0
    assert torch.equal(codec.decoder(other, lengths), frames)
    other[0, ..., 3] = 9.0
    changed = codec.decoder(other, lengths) != frames
    assert changed[0].any()
    assert not changed[1].any()


def test_a_token_of_a_cut_row_learns_nothing_from_the_picture():
    torch.manual_seed(0)
    codec = PictureTokens(SETTINGS, CLIPS)
    latent = torch.randn(1, 8, 1, 16, requires_grad=True)
    codec.decoder(latent, torch.tensor([4])).square().sum().backward()
    assert latent.grad is not None
    assert latent.grad[..., :4].abs().amin() > 0
    assert not latent.grad[..., 4:].any()


def test_every_weight_learns():
    torch.manual_seed(0)
    codec = PictureTokens(replace(SETTINGS, nested_dropout=1.0), CLIPS).train()
    frames = torch.rand(8, 3, 32, 32) * 2 - 1
    rebuilt, quantized = codec(frames)
    ((rebuilt - frames).square().mean() + quantized.loss).backward()
    assert [name for name, weight in codec.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize(("grid", "num_waves"), [((4, 6), 24), ((3, 3), 5), ((1, 4), 6)])
def test_waves_are_those_of_the_cosine_transform_longest_first(grid: tuple[int, int], num_waves: int):
    waves = cosine_waves(grid, num_waves)
    num_places = grid[0] * grid[1]
    assert waves.shape == (num_waves, num_places)
    known = min(num_waves, num_places)
    torch.testing.assert_close(waves[:known] @ waves[:known].T, torch.eye(known), atol=1e-5, rtol=0)
    assert not waves[known:].any()
    torch.testing.assert_close(waves[0], torch.full((num_places,), num_places**-0.5))
    half_a_wave = [math.sqrt(2 / num_places) * math.cos(math.pi * (c + 0.5) / grid[1]) for c in range(grid[1])]
    torch.testing.assert_close(waves[1], torch.tensor(half_a_wave * grid[0]), atol=1e-5, rtol=0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"patch": 5}, r"frames of 32x32 are not whole patches of tokens_1d\.patch=5: change it or clips"),
    ({"nested_dropout": 1.5}, r"tokens_1d\.nested_dropout=1\.5 is out of range: it must be from 0 to 1"),
    ({"quantizer": QuantizerSettings()}, r"tokens_1d\.quantizer\.grids=\[\[1, 1\], \[2, 2\], .* must be rows"),
    ({"transformer": TransformerSettings(dim=32, num_heads=3)}, "dim=32 with num_heads=3"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_that_do_not_fit_are_errors(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        PictureTokens(replace(SETTINGS, **settings), CLIPS)
