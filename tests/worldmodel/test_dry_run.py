import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worldmodel.whole_run import LOADER, TRAINING, WholeRun
from worldmodel.cache.latents import LatentCache
from worldmodel.cli import main
from worldmodel.config import write_settings
from worldmodel.dry_run import cache_info, dry_run, phases, spelled
from worldmodel.errors import SettingsError
from worldmodel.run import load_codecs
from worldmodel.training.engine import deepspeed_settings


def files_below(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def printed(whole_run: WholeRun, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("dry")
    lines = dry_run(replace(whole_run.settings, run=str(folder / "run")))
    assert list(folder.iterdir()) == []  # no folder is made
    return lines


def line_of(printed: list[str], start: str) -> str:
    (line,) = [line for line in printed if line.strip().startswith(start)]
    return line.strip()


def test_the_dictionary_of_deepspeed_is_printed(whole_run: WholeRun, printed: list[str]):
    assert printed[0] == "DeepSpeed:"
    settings = whole_run.settings
    assert json.loads(printed[1]) == deepspeed_settings(settings.training, settings.loader.batch_size, 1)


def test_parameters_are_counted_per_part(printed: list[str]):
    numbers = {
        name.strip(): int(count.replace(",", ""))
        for name, _, count in (line.partition(": ") for line in printed)
        if re.fullmatch(r"[\d,]+", count)
    }
    parts = ["embeddings", "trunk", "decoder", "head flow", "head speed", "head arrow_of_time", "head correspondence"]
    assert list(numbers) == parts
    total = line_of(printed, "parameters: ").split()[1].replace(",", "")
    assert int(total) == sum(numbers.values())
    block = 2 * 32 + 2 * 16 + 32 * 32 * 4 + 32 * 2 * 96 + 96 * 32
    assert numbers["trunk"] == 2 * block + 32


def test_memory_is_told_by_kind_and_for_more_processes(printed: list[str]):
    assert line_of(printed, "memory of each process") == "memory of each process (of 1, 8, 64, 512 processes):"
    for kind in ("weights", "gradients", "optimizer", "activations of a micro-batch", "on the device in all"):
        assert re.search(r": \d.* [kMG]B", line_of(printed, kind)), kind
    assert "the process's largest so far" in "\n".join(printed)


def test_the_cache_and_a_second_of_video_are_told(whole_run: WholeRun, printed: list[str]):
    cache = LatentCache(whole_run.cache)
    assert line_of(printed, "a second of video: ").startswith("a second of video: 10 frames, 260 codes, 50 tokens")
    hours = cache.num_clips * cache.info.num_frames / 10 / 3600
    assert line_of(printed, "cache: ").startswith(f"cache: {spelled(cache.num_bytes)} for {hours:.3g} h of video, ")
    # Chunks hold what the rows hold, and little is beside them.
    assert cache.info.bytes_per_hour * hours == pytest.approx(cache.num_bytes, rel=0.3)


def test_what_a_cache_of_videos_would_take_is_what_their_cache_takes(whole_run: WholeRun):
    codecs = [codec for codec in load_codecs([whole_run.picture, whole_run.sound]) if codec is not None]
    info = cache_info(whole_run.settings_from_videos, codecs)
    assert info.arrays() == LatentCache(whole_run.cache).info.arrays()
    assert info.bytes_per_hour == LatentCache(whole_run.cache).info.bytes_per_hour


def test_speed_is_measured_in_three_steps_of_every_part_of_the_run(printed: list[str]):
    # 4 clips of 8 frames; own context begins at a third of six steps.
    assert line_of(printed, "a step: ") == "a step: 3.2 s of video"
    for since in ("from step 1 on", "from step 3 on"):
        seconds, rate, video = re.fullmatch(
            r"[^:]*: (.*) s, (\S+) steps per hour, (\S+) s of video per second", line_of(printed, since)
        ).groups()  # type: ignore[union-attr]
        mean = sum(map(float, seconds.split(", "))) / 3
        assert float(rate) == pytest.approx(3600 / mean, rel=0.02)
        assert float(video) == pytest.approx(3.2 / mean, rel=0.02)
    assert re.search(r"^6 steps: 0:00:\d\d \(h:mm:ss\)", line_of(printed, "6 steps: "))


def test_a_run_without_own_context_has_one_part(whole_run: WholeRun):
    settings = whole_run.settings
    assert phases(settings) == [(0.0, 0.3), (0.3, 0.7)]
    assert phases(replace(settings, model=replace(settings.model, own_context=0.0))) == [(0.0, 1.0)]
    assert phases(replace(settings, model=replace(settings.model, own_context_from=0.0))) == [(0.0, 1.0)]


def test_the_command_touches_no_run_and_also_takes_one_that_is_to_be_resumed(
    whole_run: WholeRun, capsys: pytest.CaptureFixture[str], kept_signals: None
):
    before = files_below(whole_run.world)
    assert main(["train", "--resume", str(whole_run.world), "--dry-run"]) == 0
    assert "steps per hour" in capsys.readouterr().out
    assert files_below(whole_run.world) == before


def test_a_batch_that_does_not_divide_is_one_line(whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.settings, run=str(tmp_path / "run"), training=replace(TRAINING, accumulate=3))
    with pytest.raises(
        SettingsError, match="loader.batch_size=4 does not divide among the 1 processes with training.accumulate=3"
    ):
        dry_run(settings)


def test_two_processes_from_videos_print_once(whole_run: WholeRun, tmp_path: Path):
    config = tmp_path / "config.yaml"
    training = replace(TRAINING, zero_stage=2)
    write_settings(replace(whole_run.settings_from_videos, run=str(tmp_path / "run"), training=training), config)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--", "worldmodel", "train"]
    command = [sys.executable, *launcher, "--config", str(config), "--dry_run", "true"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DeepSpeed:") == 1
    assert f'"train_micro_batch_size_per_gpu": {LOADER.batch_size // 2}' in done.stdout
    assert "(of 2, 8, 64, 512 processes)" in done.stdout
    assert "cache: none is read; one would take " in done.stdout
    assert not (tmp_path / "run").exists()


def test_sizes_are_spelled_in_three_digits():
    assert [spelled(size) for size in (0, 999, 1234, 5.678e9, 2e15)] == [
        "0 B",
        "999 B",
        "1.23 kB",
        "5.68 GB",
        "2e+03 TB",
    ]
