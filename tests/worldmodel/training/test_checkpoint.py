import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worldmodel.training.toy import AfterThree, HiddenToy, Toy, finish, launch, train_toy
from worldmodel.errors import CheckpointError
from worldmodel.training import checkpoint
from worldmodel.training.checkpoint import Description, load_weights, newest, read


def saved_at(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("stage", [0, 3])
def test_a_checkpoint_describes_itself(tmp_path: Path, stage: int):
    toy, result = train_toy(tmp_path, steps=2, zero_stage=stage)
    about = read(result.checkpoint)
    assert about["version"] == 2
    assert (about["step"], about["position"], about["num_ranks"], about["zero_stage"]) == (2, 16, 1, stage)
    assert about["settings"] == {"seed": 0}
    assert about["identity"] == {"model": {"width": 16}, "codec": "abc"}
    assert about["package_version"]
    names = {"weights.safetensors", "random_0000.safetensors", "optimizer_0000.safetensors"}
    assert set(about["files"]) == names
    assert {path.name for path in result.checkpoint.rglob("*")} == names | {"checkpoint.json"}
    for name, file in about["files"].items():
        raw = (result.checkpoint / name).read_bytes()
        assert file == {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step_00000002\n"
    weights = load_file(result.checkpoint / "weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in toy.state_dict().items())


def test_weights_are_read_by_run_or_by_checkpoint(tmp_path: Path):
    toy, result = train_toy(tmp_path, steps=2)
    for place in (tmp_path, result.checkpoint):
        weights, about = load_weights(place)
        Toy().load_state_dict(weights)
        assert torch.equal(weights["net.0.weight"], toy.first_weight)
        assert about["step"] == 2


def test_weights_of_an_empty_folder_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="has no complete checkpoint: restore its files, or give the folder"):
        load_weights(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path):
    _, result = train_toy(tmp_path, steps=1)
    path = result.checkpoint / "weights.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(CheckpointError, match=r"weights.safetensors is not as it was written \(its checksum differs"):
        load_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"weights.safetensors cannot be read"):
        load_weights(result.checkpoint)


def test_only_the_newest_are_kept(tmp_path: Path):
    train_toy(tmp_path, checkpoint_every=1, keep_checkpoints=2)
    assert saved_at(tmp_path) == ["latest", "step_00000005", "step_00000006"]


def test_a_kill_while_one_is_deleted_leaves_no_part_of_it_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train_toy(tmp_path, steps=2, checkpoint_every=1)

    class Killed(BaseException):
        pass

    def delete_a_part(folder: Path) -> None:
        (folder / "checkpoint.json").unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", delete_a_part)
        train_toy(tmp_path, steps=3, resume=True)
    assert saved_at(tmp_path) == [".step_00000001.old", "latest", "step_00000002", "step_00000003"]
    train_toy(tmp_path, steps=4, resume=True)
    assert saved_at(tmp_path) == ["latest", "step_00000003", "step_00000004"]


def test_damaged_ones_older_than_those_kept_are_deleted_and_newer_ones_stay(tmp_path: Path):
    train_toy(tmp_path, steps=3, checkpoint_every=1, keep_checkpoints=3)
    for step in (1, 3):
        (tmp_path / "checkpoints" / f"step_{step:08d}" / "weights.safetensors").unlink()
    train_toy(tmp_path, steps=4, resume=True)  # from step 2, with checkpoints at the end alone
    assert saved_at(tmp_path) == ["latest", "step_00000002", "step_00000003", "step_00000004"]


@pytest.mark.parametrize("damage", ["no description", "a short file", "no shard", "no text"])
def test_an_incomplete_checkpoint_is_passed_over(tmp_path: Path, damage: str):
    train_toy(tmp_path, steps=3, checkpoint_every=2)
    newer = tmp_path / "checkpoints" / "step_00000003"
    assert newest(tmp_path) == newer
    match damage:
        case "no description":
            (newer / "checkpoint.json").unlink()
        case "a short file":
            os.truncate(newer / "weights.safetensors", 10)
        case "no shard":
            (newer / "optimizer_0000.safetensors").unlink()
        case "no text":
            (newer / "checkpoint.json").write_text("{")
    assert newest(tmp_path) == newer.with_name("step_00000002")
    toy, result = train_toy(tmp_path, steps=3, resume=True)
    assert len(toy.losses) == 1
    assert newest(tmp_path) == result.checkpoint == newer


def test_what_a_killed_run_left_is_removed(tmp_path: Path):
    train_toy(tmp_path, steps=1)
    leftover = tmp_path / "checkpoints" / ".step_00000002.partial"
    leftover.mkdir()
    (leftover / "junk").touch()
    train_toy(tmp_path, steps=2, resume=True)
    assert saved_at(tmp_path) == ["latest", "step_00000001", "step_00000002"]


def test_a_pointer_to_an_older_one_does_not_hide_the_newest(tmp_path: Path):
    train_toy(tmp_path, steps=2, checkpoint_every=1)
    (tmp_path / "checkpoints" / "latest").write_text("step_00000001\n")
    assert checkpoint.choose(tmp_path) == tmp_path / "checkpoints" / "step_00000002"


def test_a_checkpoint_from_before_clips_and_matrices_could_be_shared_is_resumed(tmp_path: Path):
    whole, _ = train_toy(tmp_path / "whole", steps=4)
    _, result = train_toy(tmp_path / "run", steps=4, stop=AfterThree())
    path = result.checkpoint / "checkpoint.json"
    about = json.loads(path.read_text())
    assert about.pop("sequence_parallel") == about.pop("tensor_parallel") == 1
    path.write_text(json.dumps(about))
    rest, _ = train_toy(tmp_path / "run", steps=4, resume=True)
    assert rest.losses == whole.losses[3:]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"model": {"width": 32}, "codec": "abc"}, "model.width is 16 there and 32 here"),
        ({"model": {"width": 16}, "codec": "xyz"}, "codec is abc there and xyz here"),
        ({"model": {"width": 16}}, "codec is abc there and not there here"),
    ],
)
def test_another_model_is_refused_by_name(tmp_path: Path, identity: dict[str, Any], message: str):
    train_toy(tmp_path, steps=1)
    with pytest.raises(CheckpointError, match=f"is of another model: {message}"):
        train_toy(tmp_path, resume=True, description=Description({}, identity))


def with_data(address: str, content: str) -> Description:
    return Description({}, {}, {"address": address, "content": content})


def test_data_that_have_changed_under_their_address_are_refused_and_others_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    train_toy(tmp_path, steps=1, description=with_data("a.zarr", "one"))
    with pytest.raises(
        CheckpointError, match="step_00000001: what is at a.zarr has changed since, so the run cannot go"
    ):
        train_toy(tmp_path, steps=2, resume=True, description=with_data("a.zarr", "two"))
    assert saved_at(tmp_path) == ["latest", "step_00000001"]
    train_toy(tmp_path, steps=2, resume=True, description=with_data("moved.zarr", "one"))
    assert "other data" not in capfd.readouterr().err
    train_toy(tmp_path, steps=3, resume=True, description=with_data("b.zarr", "two"))
    assert "goes on with other data, from moved.zarr to b.zarr\n" in capfd.readouterr().err


def test_lists_and_tuples_are_the_same_in_a_description(tmp_path: Path):
    train_toy(tmp_path, steps=1, description=Description({}, {"grids": ((1, 1), (2, 2))}))
    train_toy(tmp_path, steps=2, resume=True, description=Description({}, {"grids": [[1, 1], [2, 2]]}))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_another_shape_is_refused(tmp_path: Path, stage: int):
    train_toy(tmp_path, steps=1, zero_stage=stage)
    with pytest.raises(CheckpointError, match=r"does not fit this model or is damaged \(.*\): check the settings"):
        train_toy(tmp_path, Toy(width=24), resume=True, zero_stage=stage)


@pytest.mark.parametrize("name", ["weights", "optimizer_0000", "random_0000"])
def test_a_flipped_bit_is_found_and_the_older_checkpoint_is_used(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
):
    whole, _ = train_toy(tmp_path, steps=3, checkpoint_every=2)
    victim = tmp_path / "checkpoints" / "step_00000003" / f"{name}.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[-10] ^= 1
    victim.write_bytes(raw)
    capfd.readouterr()
    again, _ = train_toy(tmp_path, steps=3, resume=True)
    told = f"passed over: {victim} is not as it was written (its checksum differs); step_00000002 is used instead"
    assert told in capfd.readouterr().err
    assert again.losses == whole.losses[2:]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 2), (2, 1), (1, 0), (0, 2), (3, 1)])
def test_a_run_goes_on_in_another_zero_stage(tmp_path: Path, before: int, after: int, optimizer: str):
    whole, _ = train_toy(tmp_path / "whole", HiddenToy(), zero_stage=after, optimizer=optimizer)
    first, _ = train_toy(tmp_path / "run", HiddenToy(), stop=AfterThree(), zero_stage=before, optimizer=optimizer)
    second, _ = train_toy(tmp_path / "run", HiddenToy(), resume=True, zero_stage=after, optimizer=optimizer)
    assert (len(first.losses), len(second.losses)) == (3, 3)
    assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-5)


def test_state_of_another_optimizer_is_refused(tmp_path: Path):
    train_toy(tmp_path, HiddenToy(), steps=1)
    with pytest.raises(CheckpointError, match=r"there is no state exp_avg/net.0.weight in this optimizer"):
        train_toy(tmp_path, HiddenToy(), resume=True, optimizer="muon")
    (tmp_path / "other").mkdir()
    _, result = train_toy(tmp_path / "other", steps=1)
    path = result.checkpoint / "optimizer_0000.safetensors"
    state = load_file(path)
    del state["exp_avg/net.0.weight"]
    save_file(state, path)
    tell_again(result.checkpoint, path.name)
    with pytest.raises(CheckpointError, match=r"the state exp_avg/net.0.weight is missing"):
        train_toy(tmp_path / "other", steps=2, resume=True)


def tell_again(folder: Path, name: str) -> None:
    """Describes a changed file, as someone would who plants it."""
    about, raw = read(folder), (folder / name).read_bytes()
    about["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "checkpoint.json").write_text(json.dumps(about))


def test_another_version_is_refused(tmp_path: Path):
    (tmp_path / "checkpoint.json").write_text('{"version": 3}')
    with pytest.raises(CheckpointError, match="is not of version 2 but 3: go on with the worldmodel that wrote it"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path / "nowhere")


class Malice:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer_0000.safetensors", "random_0000.safetensors"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_planted_pickle_is_not_executed(tmp_path: Path, name: str, form: str):
    run, executed = tmp_path / "run", tmp_path / "executed"
    _, result = train_toy(run, steps=1)
    victim = result.checkpoint / name
    if form == "pickle":
        victim.write_bytes(pickle.dumps(Malice(executed), protocol=2))
    else:
        torch.save({"module": Malice(executed)}, victim)
    tell_again(result.checkpoint, name)
    with pytest.raises(CheckpointError, match="damaged"):
        train_toy(run, steps=2, resume=True)
    assert not executed.exists()


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path):
    printed = finish(launch("full_disk", tmp_path))[0]
    lines = [line for line in printed.splitlines() if line.startswith("cannot save")]
    assert len(lines) == 3, printed
    for line in lines:
        assert "step_00000006 (" in line
        assert "File too large" in line
        assert "make room there and resume; earlier checkpoints are intact" in line
    assert "I/O error" in lines[1]  # of safetensors
    assert saved_at(tmp_path / "run") == ["latest", "step_00000003"]
    assert f"cannot write {tmp_path / 'run' / 'tensorboard'} ([Errno 27] File too large): make room" in printed
    _, result = train_toy(tmp_path / "run", Toy(width=2048), resume=True)
    assert result.step == 6


def test_a_disk_that_is_full_for_one_process_is_told_by_all_and_leaves_what_was_there(tmp_path: Path):
    for printed in finish(launch("full_disk_of_the_last_rank", tmp_path, num_ranks=2)):
        (line,) = [line for line in printed.splitlines() if line.startswith("cannot save")]
        assert "step_00000004 (" in line
        assert "File too large" in line
        assert "make room there and resume; earlier checkpoints are intact" in line
        assert "then 4" in printed
    assert saved_at(tmp_path / "run") == ["latest", "step_00000003", "step_00000004"]


def test_a_failed_save_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "publish", refuse)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train_toy(tmp_path, steps=1)
    assert saved_at(tmp_path) == []


def test_a_damaged_checkpoint_is_named_and_does_not_count_among_those_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    train_toy(tmp_path, steps=2, checkpoint_every=1, keep_checkpoints=2)
    weights = tmp_path / "checkpoints" / "step_00000002" / "weights.safetensors"
    whole = weights.stat().st_size
    os.truncate(weights, 10)
    capfd.readouterr()
    load_weights(tmp_path)
    assert f"passed over: {weights} has 10 bytes instead of {whole}; step_00000001 is used" in capfd.readouterr().err
    train_toy(tmp_path, steps=4, checkpoint_every=2, keep_checkpoints=2, resume=True)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))
    assert kept == ["step_00000002", "step_00000004"]  # the second is good again, since the run went through it
    for step in kept:
        (tmp_path / "checkpoints" / step / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint \(.*weights.safetensors is missing; .* is"):
        load_weights(tmp_path)
