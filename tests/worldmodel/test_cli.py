import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.settings import LiveSettings
from tests.worldmodel.whole_run import WholeRun
from worldmodel import cli
from worldmodel.cli import USAGE, main
from worldmodel.config import write_settings
from worldmodel.errors import LostProcessError, MediaError
from worldmodel.settings import (
    DemoSettings,
    DoctorSettings,
    EvaluateCodecSettings,
    EvaluateSettings,
    RolloutSettings,
    TokenizerSettings,
    TrainingSettings,
    TrainSettings,
    WatchSettings,
)

Given = list[Any]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, kept_signals: None) -> Given:
    """What the commands hand to the functions that do the work, which here do nothing."""
    found: Given = []
    stand_ins: dict[str, types.ModuleType] = {}
    answers = {
        ("worldmodel.commands", "train_codec"): types.SimpleNamespace(interrupted=False),
        ("worldmodel.commands", "train_world"): types.SimpleNamespace(interrupted=False),
        ("worldmodel.rollouts.imagination", "imagine"): ["one line", "another"],
        ("worldmodel.evaluation.world", "evaluate_run"): True,
        ("worldmodel.evaluation.codec", "evaluate_codecs"): ["a table"],
        ("worldmodel.evaluation.watching", "watch_run"): ["seen"],
        ("worldmodel.doctor.examination", "examine"): True,
        ("worldmodel.demo", "run_demo"): 3,
    }
    for (module, name), answer in answers.items():
        stand_in = stand_ins.setdefault(module, types.ModuleType(module))
        setattr(stand_in, name, lambda *arguments, answer=answer: found.append(arguments) or answer)
        monkeypatch.setitem(sys.modules, module, stand_in)
    stand_ins["worldmodel.rollouts.imagination"].PIPE = "-"  # type: ignore[attr-defined]
    return found


def test_what_is_told_of_a_piped_rollout_is_not_in_its_video(given: Given, capsys: pytest.CaptureFixture[str]):
    assert main(["rollout", "run", "--prompt", "a.mp4", "--out", "-"]) == 0
    assert len(given) == 1
    assert capsys.readouterr() == ("", "one line\nanother\n")


def answer(monkeypatch: pytest.MonkeyPatch, module: str, name: str, function: Callable[..., Any]) -> None:
    monkeypatch.setattr(sys.modules[module], name, function)


def test_without_a_command_the_usage_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert capsys.readouterr().out == USAGE + "\n"
    assert main(["--help"]) == main(["-h"]) == 0


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "error: unknown command 'trian': choose from demo, tokenizer, train, rollout, evaluate, watch, doctor\n"
    )


def test_the_arguments_of_the_program_are_taken_where_none_are_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["worldmodel", "--help"])
    assert main() == 0


def test_tokenizer_and_train_hand_on_settings_a_stop_request_and_that_nothing_is_resumed(given: Given):
    assert main(["tokenizer", "--videos", "v", "--run", "r", "--kind", "sound", "--training.steps", "7"]) == 0
    settings, resume, stop = given.pop()
    assert settings == TokenizerSettings("v", "r", "sound", training=TrainingSettings(steps=7))
    assert resume is False
    assert main(["train", "--cache", "c", "--codecs", "a", "b", "--run", "r"]) == 0
    settings, resume, stop = given.pop()
    assert settings == TrainSettings(["a", "b"], "r", cache="c")
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.requested


def test_a_run_is_resumed_with_its_own_settings_and_the_arguments_on_top(given: Given, tmp_path: Path):
    write_settings(TrainSettings(["a", "b"], "elsewhere", "c", num_frames=12), tmp_path / "settings.yaml")
    assert main(["train", "--resume", str(tmp_path), "--training.steps", "9"]) == 0
    settings, resume, _ = given.pop()
    training = TrainingSettings(steps=9)
    assert settings == TrainSettings(["a", "b"], str(tmp_path), "c", num_frames=12, training=training)
    assert resume is True


def test_a_stopped_run_ends_with_the_status_for_again_and_says_how(
    given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stopped = types.SimpleNamespace(interrupted=True)
    answer(monkeypatch, "worldmodel.commands", "train_world", lambda *_: stopped)
    assert main(["train", "--cache", "c", "--codecs", "a", "--run", "runs/r"]) == 75
    assert capsys.readouterr().err.endswith("go on with: worldmodel train --resume runs/r\n")


def test_a_trained_world_says_where_it_is_and_what_comes_next(given: Given, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--cache", "c", "--codecs", "a", "--run", "runs/r"]) == 0
    assert capsys.readouterr().out == "world model trained in runs/r; next: worldmodel evaluate runs/r\n"


def test_rollout_takes_the_run_as_its_first_word_and_short_names(given: Given, capsys: pytest.CaptureFixture[str]):
    options = ["--temperature", "0.8", "--top_k=5", "--top_p", "0.9", "--continue", "x.codes.safetensors"]
    assert main(["rollout", "r", "--out", "o.mp4", *options]) == 0
    (settings,) = given.pop()
    assert isinstance(settings, RolloutSettings)
    assert (settings.run, settings.out, settings.continue_from) == ("r", "o.mp4", "x.codes.safetensors")
    sampling = settings.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == ([0.8], [5], [0.9])
    assert capsys.readouterr().out == "one line\nanother\n"
    assert main(["rollout", "--run", "r", "--out", "o.mp4", "--sampling.temperature", "1.0", "0.5"]) == 0
    assert given.pop()[0].sampling.temperature == [1.0, 0.5]


def test_a_rollout_that_is_told_to_end_ends_as_at_ctrl_c(
    given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    answer(monkeypatch, "worldmodel.rollouts.imagination", "imagine", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["rollout", "r", "--out", "o.mp4"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_evaluate_says_by_its_status_whether_all_was_passed(given: Given, monkeypatch: pytest.MonkeyPatch):
    assert main(["evaluate", "r", "--num_clips", "4"]) == 0
    assert given.pop() == (EvaluateSettings("r", num_clips=4),)
    answer(monkeypatch, "worldmodel.evaluation.world", "evaluate_run", lambda settings: False)
    assert main(["evaluate", "r"]) == 3


def test_evaluate_codec_takes_several_runs(given: Given, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "codec", "a", "b/c", "--videos", "v", "--num_clips", "3"]) == 0
    assert given.pop() == (EvaluateCodecSettings(["a", "b/c"], "v", num_clips=3),)
    assert capsys.readouterr().out == "a table\n"
    assert main(["evaluate", "codec", "--runs", "a", "--videos=v", "--out", "o"]) == 0
    assert given.pop() == (EvaluateCodecSettings(["a"], "v", "o"),)
    assert main(["evaluate", "./codec"]) == 0
    assert given.pop() == (EvaluateSettings("./codec"),)


def test_watch_takes_a_run_and_an_address(given: Given, capsys: pytest.CaptureFixture[str]):
    assert main(["watch", "r", "-", "--seconds", "5", "--live.endless", "true"]) == 0
    live = LiveSettings(buffer_seconds=1.0, endless=True)
    assert given.pop() == (WatchSettings("r", "-", seconds=5.0, live=live),)
    assert capsys.readouterr().out == "seen\n"
    assert (
        main(["watch", "--run", "r", "--address", "rtsp://host/a", "--live.options", '{"rtsp_transport": "udp"}']) == 0
    )
    assert given.pop()[0].live.options == {"rtsp_transport": "udp"}


def test_the_doctor_says_by_its_status_whether_something_failed(given: Given, monkeypatch: pytest.MonkeyPatch):
    assert main(["doctor", "--folder", "runs"]) == 0
    assert given.pop() == (DoctorSettings(folder="runs"),)
    answer(monkeypatch, "worldmodel.doctor.examination", "examine", lambda settings: False)
    assert main(["doctor"]) == 1


def test_the_demo_is_quick_by_a_word(given: Given):
    assert main(["demo", "--quick", "--folder", "d"]) == 3
    assert given.pop() == (DemoSettings("d", True),)
    assert main(["demo"]) == 3
    assert given.pop() == (DemoSettings(),)


def test_a_bare_flag_stands_for_true():
    assert cli._flag([], "--dry_run") == []
    assert cli._flag(["--dry-run"], "--dry_run") == ["--dry_run=true"]
    assert cli._flag(["--dry_run", "--run", "r"], "--dry_run") == ["--dry_run=true", "--run", "r"]
    for given in (["--dry_run", "false"], ["--dry_run=false"], ["--run", "dry_run"]):
        assert cli._flag(given, "--dry_run") == given


def test_an_error_of_the_user_is_a_line_and_a_fault_of_the_program_is_not_hidden(
    given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(error: BaseException) -> Callable[..., Any]:
        def raising(*_: Any) -> None:
            raise error

        return raising

    module, name = "worldmodel.evaluation.world", "evaluate_run"
    answer(monkeypatch, module, name, fail(MediaError("a.mp4: broken; leave it out")))
    assert main(["evaluate", "r"]) == 2
    assert capsys.readouterr().err == "error: a.mp4: broken; leave it out\n"
    # Not a mistake of the command line: a scheduler is to start it again.
    answer(monkeypatch, module, name, fail(LostProcessError("process 1 has ended; start again")))
    assert main(["evaluate", "r"]) == 1
    assert capsys.readouterr().err == "error: process 1 has ended; start again\n"
    answer(monkeypatch, module, name, fail(KeyboardInterrupt()))
    assert main(["evaluate", "r"]) == 130
    assert capsys.readouterr().err == "stopped\n"
    answer(monkeypatch, module, name, fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "r"])


def test_threads_that_wait_do_not_spin():
    assert cli  # imported before this is read
    assert os.environ["OMP_WAIT_POLICY"]


def test_a_trained_run_goes_on_from_a_video_and_is_measured(
    whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prompt = str(sorted(whole_run.videos.glob("*.mp4"))[0])
    options = ["--prompt", prompt, "--context_frames", "4", "--horizon", "3", "--temperature", "0"]
    assert main(["rollout", str(whole_run.world), "--out", str(tmp_path / "out.mp4"), *options]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out.png", "out.codes.safetensors"}
    assert "4 frames of context, 3 imagined, with sound" in capsys.readouterr().out
    options = ["--context_frames", "4", "--horizon", "2", "--num_clips", "3"]
    assert main(["evaluate", str(whole_run.world), *options]) in (0, 3)
    assert "PSNR at horizon 2 (dB)" in capsys.readouterr().out
