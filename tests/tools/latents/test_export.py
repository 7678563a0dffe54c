import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from streams.pyav.facts import small_frame
from tools.latents import main
from worldmodel.cache.latents import LatentCache


def test_tar_files_hold_the_codes_of_all_clips(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, cache = tmp_path / "tars", LatentCache(built)
    assert main(["export", str(built), str(out), "--format=tar", "--shard_clips=4"]) == 0
    assert "9 clips as tar" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["cache.json", *(f"clips-00000{n}.tar" for n in range(3))]
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                key, _, name = member.name.partition(".")
                file = members.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[name] = file.read()
    assert list(found) == [f"{clip:08d}" for clip in range(9)]
    for clip, files in enumerate(found.values()):
        for name in ("picture", "picture_reversed", "picture_fast", "sound", "thumbnails", "seconds"):
            read = np.load(io.BytesIO(files[f"{name}.npy"]))
            assert read.dtype == cache.rows[name].dtype
            assert (read == cache.rows[name][clip]).all()
        about = json.loads(files["json"])
        assert (about["video"], about["sha256"]) == cache.info.videos[clip // 3]
        assert about["start_seconds"] == cache.rows["seconds"][clip][0]
        assert about["heldout"] == bool(cache.rows["heldout"][clip])
    assert json.loads((out / "cache.json").read_text())["fingerprints"] == cache.info.fingerprints
    assert main(["export", str(built), str(tmp_path / "again"), "--format=tar", "--shard_clips=4"]) == 0
    for shard in out.glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "again" / shard.name).read_bytes()


def test_videos_are_decoded_from_the_codes_of_a_split(built: Path, tmp_path: Path):
    out, cache = tmp_path / "films", LatentCache(built)
    heldout = cache.clips_of("heldout").tolist()[:2]
    assert main(["export", str(built), str(out), "--split=heldout", "--num_clips=2"]) == 0
    names = [f"{clip:08d}.mp4" for clip in heldout]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "cache.json", "clips.json"])
    assert list(json.loads((out / "clips.json").read_text())) == names
    shown = small_frame(out / names[0], 0.0, 64).mean()
    codes = cache.rows["picture"][heldout[0]][0][1:]
    assert shown == pytest.approx(codes.mean() / 8 * 127.5, abs=8)


def test_nothing_is_overwritten_and_wrong_numbers_are_one_line(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["export", str(built), str(tmp_path / "videos")]) == 1
    assert "videos exists already: give another name" in capsys.readouterr().err
    assert main(["export", str(built), str(tmp_path / "out"), "--shard_clips=0"]) == 1
    assert "give 0 and 1 at least" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
