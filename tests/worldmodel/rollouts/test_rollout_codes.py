from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from worldmodel.errors import CacheError
from worldmodel.layout import Scale
from worldmodel.rollouts.rollout_codes import RolloutCodes, load_codes

SCALES = [Scale(1, 1, 4), Scale(1, 2, 8)]


def rollout() -> RolloutCodes:
    generator = torch.Generator().manual_seed(3)
    return RolloutCodes(
        codes=torch.randint(4, (2, 5, 3), generator=generator),
        num_prompt_frames=2,
        start_seconds=0.1,
        has_sound=True,
        frames_per_second=29.97,
        seed=3,
        generator_state=generator.get_state(),
        device="cpu",
        fingerprint="these",
    )


def test_what_is_saved_is_read_again_and_no_other_file_is_left(tmp_path: Path):
    path = tmp_path / "deep" / "out.codes.safetensors"
    rollout().save(path)
    read, wrote = vars(load_codes(path, "these", SCALES)), vars(rollout())
    for name, value in wrote.items():
        assert read[name].equal(value) if isinstance(value, torch.Tensor) else read[name] == value
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(CacheError, match=r"none: no such file; give the \.codes\.safetensors of an earlier rollout"):
        load_codes(tmp_path / "none", "these", SCALES)


def test_other_or_damaged_files_are_refused(tmp_path: Path):
    path = tmp_path / "codes"
    save_file({"codes": torch.zeros(1)}, path)
    with pytest.raises(CacheError, match="holds no codes of a rollout"):
        load_codes(path, "these", SCALES)
    rollout().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CacheError, match=r"cannot be read \(.*\); make the rollout again"):
        load_codes(path, "these", SCALES)
    save_file({"codes": torch.zeros(1)}, path, {"format": "worldmodel rollout 1"})
    with pytest.raises(CacheError, match="cannot be read"):
        load_codes(path, "these", SCALES)


def test_codes_of_other_codecs_are_refused(tmp_path: Path):
    path = tmp_path / "codes"
    rollout().save(path)
    with pytest.raises(
        CacheError, match="made with codecs these, this run has others: continue with a run of the same"
    ):
        load_codes(path, "others", SCALES)


@pytest.mark.parametrize("change", ["too many", "too large", "negative"])
def test_codes_that_the_run_cannot_have_are_refused(change: str, tmp_path: Path):
    good = rollout()
    codes = good.codes.clone()
    if change == "too many":
        codes = codes.repeat(1, 1, 2)
    else:
        codes[0, 0, 0] = 4 if change == "too large" else -1
    replace(good, codes=codes).save(tmp_path / "codes")
    with pytest.raises(CacheError, match=f"holds {codes.shape[2]} codes per frame up to {int(codes.max())}, which"):
        load_codes(tmp_path / "codes", "these", SCALES)
