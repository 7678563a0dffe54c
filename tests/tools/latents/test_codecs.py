from pathlib import Path

import torch

from tests.fake_codecs import FakePictureCodec, FakeSoundCodec
from tools.latents.codecs import decode_clip, find_codecs
from worldmodel.cache.latents import LatentCache


def test_a_clip_is_what_its_codecs_decode(built: Path):
    cache = LatentCache(built)
    codecs = find_codecs(cache, [])
    assert [codec.kind for codec in codecs] == ["picture", "sound"]
    clip = decode_clip(cache, codecs, 4)
    codes = torch.from_numpy(cache.rows["picture"][4].astype("int64"))[None]
    expected = (FakePictureCodec().decode(codes)[0] + 1) * 127.5
    assert (clip.frames.float() - expected).abs().max() <= 0.5
    sound = torch.from_numpy(cache.rows["sound"][4].astype("int64"))[None]
    assert clip.sound is not None
    assert torch.equal(clip.sound, FakeSoundCodec().decode(sound)[0])
    assert clip.seconds.tolist() == cache.rows["seconds"][4].tolist()
    assert clip.video.endswith("1.mp4")
