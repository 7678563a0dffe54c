"""One suite for every codec of pictures: the world model and the caches know none of them by name."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streams.clip import to_uint8
from streams.settings import ClipSettings
from tests.jpeg import moving
from tests.worldmodel.tiny import codebooks_of, tiny_quantizer
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.hybrid import PictureHybrid
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.store import fingerprint_of, load_codec, save_codec
from worldmodel.codecs.tokens_1d import PictureTokens
from worldmodel.settings import (
    DctSettings,
    HybridSettings,
    PictureCodecSettings,
    QuantizerSettings,
    Tokens1dSettings,
    TransformerSettings,
)

CLIPS = ClipSettings(height=32, width=48, num_frames=6)
GRIDS = ((1, 1), (2, 3), (4, 6))
PictureCodec = PictureVQ | PictureDCT


def vq(jpeg_quality: int = 0) -> PictureVQ:
    torch.manual_seed(0)
    quantizer = QuantizerSettings(grids=GRIDS, vocabulary=32, dim=8, sticky_margin=1.0)
    codec = PictureVQ(PictureCodecSettings(channels=16, jpeg_quality=jpeg_quality, quantizer=quantizer), CLIPS)
    codec.quantizer = tiny_quantizer(quantizer)
    return codec.eval()


def hybrid() -> PictureHybrid:
    """Fitted to the clip, with a few steps of the moving averages behind it."""
    torch.manual_seed(0)
    quantizer = QuantizerSettings(grids=GRIDS, vocabulary=32, dim=8, decay=0.5, sticky_margin=0.1)
    settings = HybridSettings(luma_frequencies=6, chroma_frequencies=1, quantizer=quantizer)
    codec = PictureHybrid(settings, CLIPS).train()
    codec.fit(moving())
    with torch.no_grad():
        for _ in range(20):
            codec(moving())
        for codebook in codebooks_of(codec.quantizer):  # entries that are alike would be drawn by lot
            codebook.vectors.add_(torch.randn(codebook.vectors.shape) * 0.01)
    return codec.eval()


def tokens_1d() -> PictureTokens:
    """Trained on the clips for some seconds."""
    torch.manual_seed(0)
    quantizer = QuantizerSettings(((1, 1), (1, 4), (1, 16)), vocabulary=32, dim=8, decay=0.8)
    settings = Tokens1dSettings(transformer=TransformerSettings(dim=32, depth=1, num_heads=2), quantizer=quantizer)
    codec, frames = PictureTokens(settings, CLIPS).train(), torch.cat((moving(), moving().flip(-1)))
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-2)
    for _ in range(60):
        rebuilt, quantized = codec(frames)
        loss = (rebuilt - frames).square().mean() + 0.25 * quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return codec.eval()


def dct(**settings: object) -> Callable[[], PictureDCT]:
    return lambda: PictureDCT(DctSettings(**settings), CLIPS)  # type: ignore[arg-type]


CODECS: dict[str, Callable[[], PictureCodec]] = {
    "vq": vq,
    "vq of jpeg": lambda: vq(20),
    "hybrid": hybrid,
    "tokens_1d": tokens_1d,
    "dct": dct(),
    "dct with the values of means": dct(dc="value"),
    "dct of full colour": dct(chroma="full", qualities=(50,)),
    "dct of two qualities": dct(qualities=(10, 40)),
    "dct of small blocks": dct(block=4),
    "dct of large blocks": dct(block=16, chroma="full", qualities=(30,)),
    "dct for a target of bits": dct(qualities=(3, 90), bits_per_frame=3000),
}


@pytest.fixture(scope="module", params=CODECS)
def codec(request: pytest.FixtureRequest) -> PictureCodec:
    return CODECS[request.param]()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Two clips of six frames."""
    return torch.stack((moving(), moving().flip(-1)))


def test_codes_lie_within_the_vocabularies_of_their_scales(codec: PictureCodec, clips: Tensor):
    codes = codec.encode(clips)
    assert codes.dtype == torch.int64
    assert codes.shape == (2, 6, codec.pyramid.num_codes)
    for scale, part in zip(codec.pyramid.scales, codec.pyramid.slices, strict=True):
        assert codes[..., part].shape[-1] == scale.planes * scale.height * scale.width
        assert 0 <= int(codes[..., part].min()) <= int(codes[..., part].max()) < scale.vocabulary


def test_decoding_gives_frames_of_the_same_shape_and_range(codec: PictureCodec, clips: Tensor):
    decoded = codec.decode(codec.encode(clips))
    assert decoded.shape == clips.shape
    assert decoded.dtype == torch.float32
    assert decoded.abs().max() <= 1


def test_any_codes_within_the_vocabularies_can_be_decoded(codec: PictureCodec):
    scales = codec.pyramid.scales
    codes = torch.cat([torch.randint(scale.vocabulary, (1, 3, scale.num_codes)) for scale in scales], -1)
    decoded = codec.decode(codes)
    assert decoded.isfinite().all()
    assert decoded.abs().max() <= 1


def test_encoding_frame_by_frame_is_encoding_at_once(codec: PictureCodec, clips: Tensor):
    codes, previous = codec.encode(clips), None
    for frame in range(clips.shape[1]):
        step = codec.encode(clips[:, frame : frame + 1], previous)
        previous = step[:, 0]
        assert torch.equal(previous, codes[:, frame])
    assert (codes[:, 1:] == codes[:, :-1]).any()
    assert not torch.equal(codes[:, 3], codec.encode(clips[:, 3:4])[:, 0])  # what came before matters


def test_views_are_the_codes_of_the_frames_in_their_order(codec: PictureCodec, clips: Tensor):
    expected = [codec.encode(view) for view in (clips, clips.flip(1), clips[:, ::2])]
    for view, other in zip(codec.encode_views(clips), expected, strict=True):
        assert torch.equal(view, other)
    lengths = [[6, 1], [2, 6], [3, 1]]
    for view, other, wanted in zip(codec.encode_views(clips, lengths), expected, lengths, strict=True):
        for clip in range(2):
            assert torch.equal(view[clip, : wanted[clip]], other[clip, : wanted[clip]])
            assert not view[clip, wanted[clip] :].any()


def test_a_clip_is_the_same_alone_and_in_a_batch(codec: PictureCodec, clips: Tensor):
    codes = codec.encode(clips)
    for clip in range(2):
        assert torch.equal(codec.encode(clips[clip : clip + 1])[0], codes[clip])
    alone = codec.decode(codes[1:, 2:3])[0, 0]
    torch.testing.assert_close(alone, codec.decode(codes)[1, 2], atol=1e-5, rtol=0)


def test_a_codec_comes_back_from_disk_with_its_fingerprint(codec: PictureCodec, clips: Tensor, tmp_path: Path):
    fingerprint = save_codec(tmp_path, codec)
    loaded = load_codec(tmp_path)
    assert type(loaded) is type(codec)
    assert loaded.fingerprint == fingerprint == fingerprint_of(tmp_path)
    assert (loaded.settings, loaded.clips, loaded.pyramid) == (codec.settings, codec.clips, codec.pyramid)
    codes = codec.encode(clips)
    assert torch.equal(loaded.encode(clips), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))


def test_fewer_scales_read_no_finer_codes(codec: PictureCodec, clips: Tensor):
    codes = codec.encode(clips)
    for num_scales, part in enumerate(codec.pyramid.slices):
        other = codes.clone()
        other[..., part.start :] = 0
        assert torch.equal(codec.decode(codes, num_scales), codec.decode(other, num_scales))
    assert torch.equal(codec.decode(codes, len(codec.pyramid.scales)), codec.decode(codes))


def test_more_scales_are_never_much_worse(codec: PictureCodec, clips: Tensor):
    if codec.family == "vq":
        pytest.skip("this one is not trained")
    codes = codec.encode(clips)
    errors = [
        float((codec.decode(codes, number) - clips).square().mean()) for number in range(len(codec.pyramid.scales) + 1)
    ]
    assert all(after <= 1.05 * before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.5 * errors[0]


def test_stickiness_leaves_still_codes_alone_and_costs_little(codec: PictureCodec, clips: Tensor):
    codes = codec.encode(clips)
    afresh = torch.stack([codec.encode(clips[:, frame : frame + 1])[:, 0] for frame in range(6)], 1)
    assert (codes[:, 1:] != codes[:, :-1]).sum() < (afresh[:, 1:] != afresh[:, :-1]).sum()
    if codec.family != "vq":
        errors = [(codec.decode(each) - clips).square().mean() for each in (codes, afresh)]
        assert errors[0] < 1.5 * errors[1]


def test_no_gradient_is_kept(codec: PictureCodec, clips: Tensor):
    codes = codec.encode(clips)
    assert not codec.decode(codes).requires_grad


def test_codes_are_those_of_the_frames_at_rest(codec: PictureCodec, clips: Tensor):
    again = to_uint8(clips).float() / 127.5 - 1
    assert torch.equal(codec.encode(again), codec.encode(clips))


def test_a_codec_can_be_built_without_memory_and_moved(codec: PictureCodec):
    with torch.device("meta"):
        built = type(codec)(codec.settings, CLIPS)  # type: ignore[arg-type]
    assert built.pyramid == codec.pyramid
    assert codec.to("cpu") is codec
