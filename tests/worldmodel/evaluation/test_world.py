import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldmodel.whole_run import CLIP_FRAMES, WINDOW_FRAMES, WholeRun
from worldmodel.cache.latents import LatentCache, LatentSource
from worldmodel.cache.writer import sealed
from worldmodel.config import write_settings
from worldmodel.errors import CacheError, MediaError, SettingsError
from worldmodel.evaluation.metrics import entropy_bits
from worldmodel.evaluation.world import (
    Comparison,
    ahead_of,
    bits_of_clips,
    evaluate_run,
    heldout_videos,
    measure_codes,
    outputs_of,
    table,
    unigram_bits,
)
from worldmodel.run import SETTINGS, LoadedRun, load_run
from worldmodel.settings import EvaluateSettings


def test_results_of_light_weights_do_not_replace_those_of_the_run_as_it_is():
    names = [outputs_of(EvaluateSettings("run", weights=weights)) for weights in ("fp32", "bf16", "int8", "fp8")]
    assert names[0] == Path("run/evaluation")
    assert len(set(names)) == 4


@pytest.fixture(scope="module")
def run(whole_run: WholeRun) -> LoadedRun:
    return load_run(whole_run.world)


def settings_of(whole_run: WholeRun, **changes: object) -> EvaluateSettings:
    settings = EvaluateSettings(str(whole_run.world), context_frames=4, horizon=8, num_clips=6)
    return replace(settings, **changes)  # type: ignore[arg-type]


def test_ahead_is_the_mean_difference_and_passes_when_all_of_its_interval_is_above_zero():
    baseline = np.array([1.0, 2.0, 3.0, 4.0])
    sure = ahead_of("sure", baseline + 2.0, baseline, 0)
    assert (sure.value, sure.baseline) == (4.5, 2.5)
    assert (sure.low, sure.high, sure.passed, sure.required) == (2.0, 2.0, True, True)
    assert not ahead_of("equal", baseline, baseline, 0).passed
    behind = ahead_of("behind", baseline - 1.0, baseline, 0, required=False)
    assert (behind.low, behind.high, behind.passed, behind.required) == (-1.0, -1.0, False, False)
    mixed = ahead_of("mixed", baseline + np.array([3.0, -2.0, 3.0, -2.0]), baseline, 0)
    assert mixed.low < 0 < mixed.high
    assert not mixed.passed


def test_clips_are_compared_with_themselves_and_not_with_the_mean_of_others():
    # Differences among clips are large, that between the two methods small but always there.
    baseline = np.linspace(0, 100, 30)
    assert ahead_of("paired", baseline + 0.1, baseline, 0).passed


def test_the_table_says_what_passed_what_failed_and_what_was_only_an_aim():
    lines = table([
        Comparison("bits", 10.0, 12.5, 2.0, 3.0, True),
        Comparison("head", 0.5, 0.5, -0.1, 0.1, False),
        Comparison("PSNR", 20.0, 21.0, -1.5, -0.5, False, required=False),
    ])  # fmt: skip
    assert len(lines) == 4
    assert [line.rsplit("  ", 1)[1] for line in lines[1:]] == ["pass", "FAIL", "not reached (aim)"]
    assert "10.000" in lines[1]
    assert "12.500" in lines[1]
    assert "+2.000 … +3.000" in lines[1]
    assert "-1.500 … -0.500" in lines[3]
    assert len({line.index("…") for line in lines[1:]}) == 1


def test_unigram_bits_equal_a_naive_count(run: LoadedRun, whole_run: WholeRun):
    cache = LatentCache(whole_run.cache)
    bits = unigram_bits(run, cache)
    train = [clip for clip in range(cache.num_clips) if not cache.rows["heldout"][clip]]
    codes = np.concatenate([np.stack([cache.rows[kind][clip] for clip in train]) for kind in ("picture", "sound")], -1)
    place = 0
    for scale in run.model.decoder.scales:
        columns = range(place, place + scale.num_codes)
        place += scale.num_codes
        values = [int(code) for column in columns for code in codes[..., column].ravel()]
        for code in range(scale.vocabulary):
            expected = -np.log2((values.count(code) + 1) / (len(values) + scale.vocabulary))
            for column in columns:
                assert float(bits[column, code]) == pytest.approx(expected, rel=1e-5)
        counts = np.bincount(values, minlength=scale.vocabulary)
        cross = float((counts / counts.sum() * bits[columns[0], : scale.vocabulary].numpy()).sum())
        assert entropy_bits(counts) <= cross < entropy_bits(counts) + 0.2


def test_bits_of_clips_are_those_of_the_objective_clip_by_clip(run: LoadedRun, whole_run: WholeRun):
    source = LatentSource(whole_run.cache, WINDOW_FRAMES, "heldout", random_start=False)
    batch = source.collate([source.read(index, np.random.default_rng(0)) for index in range(3)])
    codes = torch.cat((batch.picture, batch.sound), 2)
    bits = bits_of_clips(run.objective, codes, codes, batch)
    assert bits.shape == (3,)
    _, metrics = run.objective(batch)
    assert bits.mean() == pytest.approx(float(metrics["next/bits_per_frame"]), rel=1e-5)
    alone = source.collate([source.read(1, np.random.default_rng(0))])
    assert bits_of_clips(run.objective, codes[1:2], codes[1:2], alone)[0] == pytest.approx(bits[1], rel=1e-4)
    assert not np.allclose(bits_of_clips(run.objective, codes.roll(1, 0), codes, batch), bits)


def test_held_out_videos_are_those_of_the_cache_and_long_enough(run: LoadedRun, whole_run: WholeRun):
    cache = LatentCache(whole_run.cache)
    source = heldout_videos(run, cache, 12)
    names = {cache.info.videos[int(cache.rows["video"][int(clip)])][0] for clip in cache.clips_of("heldout")}
    assert {str(video.path) for video in source.videos} == names
    assert 0 < len(names) < len(cache.info.videos)
    assert source.settings == replace(run.picture.clips, num_frames=12)


def test_a_run_is_measured_from_beginning_to_end(whole_run: WholeRun, capsys: pytest.CaptureFixture[str]):
    passed = evaluate_run(settings_of(whole_run))
    printed = capsys.readouterr().out
    rows = json.loads((whole_run.world / "evaluation.json").read_text())
    names = [row["name"] for row in rows]
    assert names == [
        *(f"PSNR at horizon {horizon} (dB)" for horizon in (1, 2, 4, 8)),
        "bits per frame against unigram entropy",
        "bits per frame with shuffled context",
        *(f"head {head}, score" for head in ("flow", "arrow_of_time", "speed", "correspondence")),
    ]
    assert [row["required"] for row in rows[:4]] == [False, False, True, True]
    assert all(row["required"] for row in rows[4:])
    assert [row["baseline"] for row in rows[6:]] == [0.0, 0.5, 0.5, 0.5]
    assert passed == all(row["passed"] for row in rows if row["required"])
    for row in rows:
        assert row["passed"] == (row["low"] > 0)
        assert row["low"] <= row["high"]
        assert row["name"] in printed
        lead = row["baseline"] - row["value"] if "bits" in row["name"] else row["value"] - row["baseline"]
        assert row["low"] - 1e-6 <= lead <= row["high"] + 1e-6
    assert (whole_run.world / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    lines = (whole_run.world / "evaluation.csv").read_text().splitlines()
    assert lines[0].startswith("horizon,PSNR of rollout (dB),PSNR of")
    assert float(lines[1].split(",")[1]) == pytest.approx(rows[0]["value"], abs=1e-3)
    assert "codes against the truth" in printed
    assert not list(whole_run.world.glob("*.partial"))
    evaluate_run(settings_of(whole_run))
    assert json.loads((whole_run.world / "evaluation.json").read_text()) == rows


def test_a_run_from_videos_is_measured_as_with_their_cache(whole_run: WholeRun, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(whole_run.world, run)
    write_settings(replace(whole_run.settings_from_videos, run=str(run)), run / SETTINGS)
    rows = []
    for cache in (None, str(whole_run.cache)):
        evaluate_run(settings_of(whole_run, run=str(run), cache=cache, num_clips=100))
        rows.append((run / "evaluation.json").read_text())
    assert rows[0] == rows[1]
    assert len(json.loads(rows[0])) == 10


def test_a_trained_model_is_better_than_one_that_sees_another_clip(run: LoadedRun, whole_run: WholeRun):
    rows = {row.name: row for row in measure_codes(run, LatentCache(whole_run.cache), settings_of(whole_run))}
    row = rows["bits per frame with shuffled context"]
    assert row.value < row.baseline
    assert row.value > 0


def test_a_cache_without_held_out_videos_is_refused(
    run: LoadedRun, whole_run: WholeRun, monkeypatch: pytest.MonkeyPatch
):
    cache = LatentCache(whole_run.cache)
    monkeypatch.setattr(cache, "clips_of", lambda split: np.array([], dtype=np.int64))
    with pytest.raises(CacheError, match="cannot be read: none was held out; build the cache again"):
        heldout_videos(run, cache, 12)


def test_held_out_videos_that_are_gone_are_named(run: LoadedRun, whole_run: WholeRun):
    cache = LatentCache(whole_run.cache)
    gone = replace(cache.info, videos=[("/nowhere/a.mp4", "0")] * len(cache.info.videos))
    cache.info = gone
    with pytest.raises(CacheError, match=r"/nowhere/a\.mp4 is not there any more; build the cache again"):
        heldout_videos(run, cache, 12)


def test_videos_shorter_than_context_and_horizon_are_an_error_of_the_user(whole_run: WholeRun):
    with pytest.raises(MediaError, match="too short"):
        evaluate_run(settings_of(whole_run, horizon=100))


def test_one_held_out_clip_alone_can_be_measured_or_is_refused_in_words(run: LoadedRun, whole_run: WholeRun):
    cache = LatentCache(whole_run.cache)
    with pytest.raises((CacheError, SettingsError)):
        measure_codes(run, cache, settings_of(whole_run, num_clips=1))


def test_a_device_that_is_not_here_is_refused(whole_run: WholeRun):
    with pytest.raises(SettingsError, match="device=cuda is not here: give auto or one of cpu"):
        evaluate_run(EvaluateSettings(run=str(whole_run.world), device="cuda"))


def test_a_cache_of_other_codecs_is_refused(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.cache, tmp_path / "other.zarr")
    path = tmp_path / "other.zarr" / "zarr.json"
    about = json.loads(path.read_text())
    about["attributes"]["fingerprints"]["picture"] = "another"
    about["attributes"] = sealed(about["attributes"])
    path.write_text(json.dumps(about))
    with pytest.raises(CacheError, match="was made with picture codec another, but codec"):
        evaluate_run(settings_of(whole_run, cache=str(tmp_path / "other.zarr")))


def test_clips_of_the_cache_are_as_the_fixture_says(whole_run: WholeRun):
    assert LatentCache(whole_run.cache).info.num_frames == CLIP_FRAMES
