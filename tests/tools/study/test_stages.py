"""A tiny study from videos to table, stopped and gone on with; `measure` and `__main__` with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from streams.physics.world import write_clip
from tests.worldmodel.whole_run import WORLD
from tools.study import stages
from tools.study.__main__ import main
from worldmodel.training.loop import TrainResult

TRAINING = {"steps": 2, "warmup_steps": 1, "preview_every": 0, "zero_stage": 0}
TINY: dict[str, Any] = {
    "base": {
        "tokenizer": {
            "picture": {
                "channels": 8,
                "quantizer": {
                    "grids": [[1, 1], [2, 2]],
                    "vocabulary": 8,
                    "dim": 4,
                    "sticky_margin": 0.5,
                    "bit_price": 0.0,
                },
            },
            "clips": {"height": 16, "width": 16, "num_frames": 2, "sample_hz": 8000},
            "loader": {"batch_size": 2, "num_workers": 0},
            "training": TRAINING,
        },
        "cache": {"clips.num_frames": 16, "heldout": 0.5, "workers": 1},
        "train": {
            "num_frames": 8,
            "model": {
                "trunk": {"dim": 16, "depth": 1, "num_heads": 1},
                "decoder": {"dim": 16, "depth": 1, "num_heads": 1},
            },
            "heads": {"flow": 0.0, "speed": 0.0, "arrow_of_time": 0.0, "correspondence": 0.0},
            "loader": {"batch_size": 2, "num_workers": 0},
            "training": TRAINING,
        },
        "evaluate": {"context_frames": 4, "horizon": 4, "num_clips": 4},
    },
    "variants": {
        "sticky": {},
        "nearest": {"tokenizer": {"picture.quantizer.sticky_margin": 0.0}},
        "noisy": {"train": {"model.context_noise": 0.5}},
    },
    "compare": {"sticky": ["nearest"]},
}


def test_a_study_goes_on_where_it_stopped_and_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    videos, out, file = tmp_path / "videos", tmp_path / "out", tmp_path / "tiny.yaml"
    videos.mkdir()
    for seed in range(6):
        write_clip(videos, WORLD, seed)
    file.write_text(yaml.safe_dump(TINY, sort_keys=False), encoding="utf-8")
    command = [str(file), "--videos", str(videos), "--out", str(out)]
    with monkeypatch.context() as patched:
        patched.setattr(stages, "train_world", lambda *_: TrainResult(1, 2, True, out))
        assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "sticky: latent cache (kept)" in printed
    assert "sticky: world model\n" in printed
    assert "noisy: picture codec (kept)" in printed  # the first variant's
    assert not (out / "noisy" / "picture").exists()
    found = json.loads((out / "study.json").read_text(encoding="utf-8"))["variants"]
    assert list(found) == list(TINY["variants"])
    assert found["sticky"]["codec"] | {"encoded_frames_per_second": 0, "decoded_frames_per_second": 0} == found[
        "noisy"
    ]["codec"] | {"encoded_frames_per_second": 0, "decoded_frames_per_second": 0}
    assert found["sticky"]["model_bits"] != found["noisy"]["model_bits"]
    assert list(found["sticky"]["rollout_psnr"]) == ["1", "2", "4"]
    assert all(0 <= bits <= 1 for each in found.values() for bits in each["drift"].values())
    assert list(found["sticky"]["drift"]) == ["1", "2", "4"]
    changed = [found[name]["codec"]["scales"][-1]["changed"] for name in ("sticky", "nearest")]
    assert changed[0] <= changed[1]
    with Image.open(out / "study.png") as picture:
        assert picture.format == "PNG"
    before = (out / "study.json").read_bytes()
    assert main(command) == 0
    assert capsys.readouterr().out.count("(kept)") == 12
    assert (out / "study.json").read_bytes() == before


def test_another_study_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky" / "made_of.json").write_text("{}", encoding="utf-8")
    assert main(["stickiness", "--videos", "VIDEOS", "--out", str(tmp_path)]) == 1
    assert "holds variant sticky of other settings" in capsys.readouterr().err
