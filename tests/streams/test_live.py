import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streams.clip import Clip
from streams.errors import MediaError
from streams.live import LiveSource
from streams.live_reading import LiveReading
from streams.settings import ClipSettings, LiveSettings
from streams.videos import VideoSource
from tests.streams.ffmpeg import number_of, reference_sound
from tests.streams.live_servers import NUM_FRAMES, SECONDS, fifo, http_server, make_footage, paced, tcp_server

CLIPS = ClipSettings(frames_per_second=10.0, height=64, width=96, num_frames=4, sample_hz=16000)
# Nothing is dropped, and nothing tried twice, unless a test is about it.
PATIENT = LiveSettings(buffer_seconds=60.0, num_reconnects=0, backoff_seconds=0.01)
SHORT = replace(PATIENT, timeout_seconds=0.8)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("live") / "a.ts")


def all_clips(address: str, live: LiveSettings = PATIENT, clips: ClipSettings = CLIPS) -> tuple[list[Clip], LiveSource]:
    with LiveSource(address, clips, live) as source:
        return list(source), source


def clips_before_the_error(source: LiveSource, match: str) -> list[Clip]:
    found = []
    with source, pytest.raises(MediaError, match=match):
        found.extend(iter(source.__next__, None))
    return found


def assert_equal_to_the_file(clips: list[Clip], path: Path) -> None:
    source = VideoSource([path], CLIPS)
    heard = reference_sound(path, CLIPS.sample_hz)
    first = source.videos[0].first
    assert [round(float(clip.seconds[0]) * 10) for clip in clips] == list(
        range(first, first + source.videos[0].num_frames - 3, 4)
    )
    for clip in clips:
        wanted = source.clips_at(0, [round(float(clip.seconds[0]) * 10)])[0]
        assert torch.equal(clip.seconds, wanted.seconds)
        assert (clip.frames.int() - wanted.frames.int()).abs().max() <= 3
        assert clip.sound is not None
        for seconds, sound in zip(clip.seconds.tolist(), clip.sound.numpy(), strict=True):
            start = round(seconds * 16000)
            expected = np.zeros(1600, np.float32)
            part = heard[start : start + 1600]
            expected[: len(part)] = part
            inside = slice(0, 1400)  # the two sides end the last sound at different samples
            np.testing.assert_allclose(sound[inside], expected[inside], atol=0.02)
            assert seconds > SECONDS - 0.2 or sound.std() > 0.2
    source.close()


def numbers(clips: list[Clip]) -> list[int]:
    """Instants of the frames of all clips, each clip without a gap."""
    found = []
    for clip in clips:
        instants = (clip.seconds * 10).round().int().tolist()
        assert instants == list(range(instants[0], instants[0] + len(instants)))
        found += instants
    return found


def test_a_file_at_its_pace_gives_the_clips_of_a_video(footage: Path):
    clips, source = all_clips(str(footage), replace(PATIENT, speed=20.0))
    assert_equal_to_the_file(clips, footage)
    assert vars(source.counts) == dict.fromkeys(vars(source.counts), 0) | {"frames": 24}


def test_http_at_real_time_gives_the_clips_of_a_video(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data, SECONDS)) as place:
        clips, source = all_clips(f"http://{place}/a.ts")
    assert_equal_to_the_file(clips, footage)
    assert source.counts.dropped_frames == source.counts.reconnects == 0


def test_tcp_gives_the_clips_of_a_video(footage: Path):
    with tcp_server(paced(footage.read_bytes(), 0.2)) as place:
        clips, _ = all_clips(f"tcp://{place}")
    assert_equal_to_the_file(clips, footage)


def test_a_pipe_gives_the_clips_of_a_video(footage: Path, tmp_path: Path):
    with fifo(tmp_path / "pipe", paced(footage.read_bytes(), 0.2)) as address:
        clips, _ = all_clips(address)
    assert_equal_to_the_file(clips, footage)


def test_a_fragmented_mp4_comes_through_a_pipe_too(tmp_path: Path):
    encoding = (
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "12",
        "-c:a",
        "aac",
        "-movflags",
        "frag_keyframe+delay_moov",
    )
    path = make_footage(tmp_path / "a.mp4", *encoding)
    with fifo(tmp_path / "pipe", paced(path.read_bytes())) as address:
        clips, _ = all_clips(address)
    assert_equal_to_the_file(clips, path)


def test_pictures_without_a_clock_are_shown_when_they_come(tmp_path: Path):
    path = make_footage(tmp_path / "a.mjpeg", "-c:v", "mjpeg", "-q:v", "2", "-an")
    pictures = [b"\xff\xd8" + part for part in path.read_bytes().split(b"\xff\xd8")[1:]]
    parts = [b"--ball\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(p), p) for p in pictures]

    def script(send, over: threading.Event) -> None:
        for part in parts:
            send(part)
            over.wait(0.02)

    with http_server(sum(map(len, parts)), script, kind="multipart/x-mixed-replace;boundary=ball") as place:
        clips, source = all_clips(f"http://{place}/")
    assert all(clip.sound is None for clip in clips)
    shown = [number_of(frame) for clip in clips for frame in clip.frames.numpy()]
    assert shown == sorted(shown)
    assert source.counts.late_frames == 0
    assert len(numbers(clips)) >= 8


def test_a_slow_consumer_loses_the_oldest_frames_and_they_are_counted(footage: Path):
    with LiveSource(str(footage), CLIPS, replace(PATIENT, buffer_seconds=1.0, speed=20.0)) as source:
        before = numbers([next(source)])
        source.thread.join(20)
        after = numbers(list(source))
    counts = source.counts
    # Of the ten newest frames in the buffer, the last two do not make a clip.
    assert (before + after)[-8:] == list(range(after[-1] - 7, after[-1] + 1))
    assert counts.left_over_frames == 2
    assert counts.frames == 24 == len(before) + len(after) + counts.dropped_frames + counts.left_over_frames
    assert counts.dropped_frames > 0


def test_clips_may_overlap_and_nothing_is_lost(footage: Path):
    with LiveSource(str(footage), CLIPS, replace(PATIENT, speed=20.0), stride_frames=1) as source:
        starts = [round(float(clip.seconds[0]) * 10) for clip in source]
    assert starts == list(range(starts[0], starts[0] + 21))
    assert source.counts.dropped_frames == source.counts.left_over_frames == 0


def test_overlapping_clips_count_only_frames_that_no_clip_had(footage: Path):
    live = replace(PATIENT, buffer_seconds=0.6, speed=20.0)
    with LiveSource(str(footage), CLIPS, live, stride_frames=1) as source:
        seen = set(numbers([next(source)]))
        source.thread.join(20)
        seen.update(*(numbers([clip]) for clip in source))
    assert source.counts.dropped_frames == 24 - len(seen)


def test_clips_may_leave_frames_out(footage: Path):
    with LiveSource(str(footage), CLIPS, replace(PATIENT, speed=20.0), stride_frames=7) as source:
        starts = [round(float(clip.seconds[0]) * 10) for clip in source]
    assert np.diff(starts).tolist() == [7, 7]
    assert source.counts.dropped_frames == 0


def test_a_server_that_stalls_is_an_error_after_the_whole_clips(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data, stop_at=0.6, stall=True)) as place:
        source = LiveSource(f"http://{place}/a.ts", CLIPS, SHORT)
        clips = clips_before_the_error(source, r"/a\.ts: nothing came for 0\.8 s; .* larger timeout_seconds")
    assert 2 <= len(clips) <= 4


def test_a_server_that_says_nothing_is_an_error(tmp_path: Path):
    with tcp_server(paced(b"", stall=True)) as place:
        clips_before_the_error(LiveSource(f"tcp://{place}", CLIPS, SHORT), "nothing came for 0.8 s")
    with fifo(tmp_path / "pipe", paced(b"", stall=True)) as address:
        clips_before_the_error(LiveSource(address, CLIPS, SHORT), "pipe: nothing came for 0.8 s")


def test_a_stream_that_is_cut_ends_after_its_whole_clips(footage: Path):
    with tcp_server(paced(footage.read_bytes(), stop_at=0.6)) as place:
        clips, source = all_clips(f"tcp://{place}")
    whole = len(numbers(clips))
    assert 8 <= whole <= 16
    assert source.counts.frames == whole + source.counts.left_over_frames


def test_a_download_that_is_cut_is_an_error(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data, stop_at=0.6)) as place:
        source = LiveSource(f"http://{place}/a.ts", CLIPS, PATIENT)
        assert clips_before_the_error(source, r"broke off \(.*\); look at the address and the source")


def test_a_source_that_breaks_off_is_connected_again_and_no_clip_hides_the_gap(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data, stop_at=0.6), paced(data)) as place:
        clips, source = all_clips(f"http://{place}/a.ts", replace(PATIENT, num_reconnects=1))
    counts = source.counts
    assert (counts.reconnects, counts.gaps) == (1, 1)
    instants = numbers(clips)
    assert np.diff(instants).min() == 1
    assert (np.diff(instants) > 1).sum() == 1
    for clip in clips:
        shown = [number_of(frame) for frame in clip.frames.numpy()]
        assert set(np.diff(shown).tolist()) <= {2, 3}  # of 25 frames per second, ten
    assert number_of(clips[-1].frames[-1].numpy()) >= NUM_FRAMES - 12


def test_a_source_that_stays_away_is_an_error_after_the_last_attempt(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data, stop_at=0.6)) as place:
        source = LiveSource(f"http://{place}/a.ts", CLIPS, replace(SHORT, num_reconnects=2))
        assert clips_before_the_error(source, "nothing came|cannot be opened")
    assert source.counts.reconnects == 2


def test_an_endless_source_is_connected_again_where_it_ends(footage: Path):
    data = footage.read_bytes()
    with tcp_server(paced(data), paced(data)) as place:
        live = replace(SHORT, num_reconnects=1, endless=True)
        clips = clips_before_the_error(LiveSource(f"tcp://{place}", CLIPS, live), "nothing came|has ended")
    assert len(numbers(clips)) == 48
    assert (np.diff(numbers(clips)) > 1).sum() == 1


def test_a_clock_that_jumps_back_begins_a_new_clip(footage: Path, tmp_path: Path):
    with fifo(tmp_path / "pipe", paced(2 * footage.read_bytes())) as address:
        clips, source = all_clips(address)
    assert source.counts.gaps == 1
    assert (np.diff(numbers(clips)) > 1).sum() == 1
    shown = [[number_of(frame) for frame in clip.frames.numpy()] for clip in clips]
    assert all(set(np.diff(one).tolist()) <= {2, 3} for one in shown)
    assert len(shown) >= 10


def test_what_a_pause_leaves_out_is_a_gap(tmp_path: Path):
    encoding = ("-c:v", "libx264", "-vf", r"select=not(between(n\,20\,44))", "-fps_mode", "vfr", "-an")
    path = make_footage(tmp_path / "a.mkv", *encoding)
    clips, source = all_clips(str(path), replace(PATIENT, speed=20.0, gap_seconds=0.5))
    assert source.counts.gaps == 1
    assert numbers(clips) == [*range(8), *range(18, 22)]
    assert source.counts.left_over_frames == 2
    held, source = all_clips(str(path), replace(PATIENT, speed=20.0, gap_seconds=2.0))
    assert (numbers(held), source.counts.gaps) == (list(range(24)), 0)


@pytest.mark.parametrize("kind", ["pipe", "tcp", "file"])
def test_closing_ends_a_source_that_is_waiting(kind: str, footage: Path, tmp_path: Path):
    live = replace(PATIENT, timeout_seconds=1.5, speed=0.01)
    with (
        tcp_server(paced(footage.read_bytes(), stop_at=0.3, stall=True)) as place,
        fifo(tmp_path / "pipe", paced(b"", stall=True)) as pipe,
    ):
        source = LiveSource({"pipe": pipe, "tcp": f"tcp://{place}", "file": str(footage)}[kind], CLIPS, live)
        asked = threading.Thread(target=lambda: list(source))
        asked.start()
        source.close()
        asked.join(10)
        assert not asked.is_alive()
        assert list(source) == []
        source.thread.join(10)
        assert not source.thread.is_alive()


def test_a_device_that_hangs_in_the_system_is_an_error(footage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LiveReading, "run", lambda self: self.stop.wait(10))
    source = LiveSource(str(footage), CLIPS, replace(PATIENT, timeout_seconds=0.1))
    clips_before_the_error(source, r"a\.ts: no picture for 0\.2 s; .* larger timeout_seconds")


def test_a_fault_of_the_thread_is_not_the_end_of_the_source(footage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(LiveReading, "run", lambda self: 1 / 0)
    with LiveSource(str(footage), CLIPS) as source, pytest.raises(RuntimeError, match=r"reading .*a\.ts failed in its"):
        next(source)


def test_an_address_that_nobody_answers_is_tried_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    source = LiveSource(f"tcp://127.0.0.1:{port}", CLIPS, LiveSettings())
    clips_before_the_error(source, r"cannot be opened \(Connection refused\); look at the address")
    assert source.counts.reconnects == 0


@pytest.mark.parametrize("kind", ["pipe", "http", "file"])
def test_a_playlist_opens_no_file_of_this_machine(kind: str, footage: Path, tmp_path: Path):
    shutil.copy(footage, tmp_path / "secret.ts")
    list_of_files = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nfile:{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.ts").write_text(list_of_files)
    script = paced(list_of_files.encode())
    with (
        http_server(len(list_of_files), script, script, kind="application/vnd.apple.mpegurl") as place,
        fifo(tmp_path / "p", script) as pipe,
    ):
        address = {"pipe": pipe, "http": f"http://{place}/a.m3u8", "file": str(tmp_path / "a.ts")}[kind]
        clips_before_the_error(LiveSource(address, CLIPS, SHORT), "cannot be opened|nothing came|broke off")


def test_a_clip_names_its_source_without_the_password(footage: Path):
    data = footage.read_bytes()
    with http_server(len(data), paced(data)) as place:
        clips, _ = all_clips(f"http://me:secret@{place}/a.ts")
        assert {clip.video for clip in clips} == {f"http://{place}/a.ts"}


def test_numbers_out_of_range_are_refused(footage: Path):
    with pytest.raises(ValueError, match=r"stride_frames=0 is out of range: it must be 1 or more"):
        LiveSource(str(footage), CLIPS, stride_frames=0)
    with pytest.raises(
        ValueError, match=r"buffer_seconds=0.3 holds 3 frames at 10 per second, but a clip has 4: give 0.4"
    ):
        LiveSource(str(footage), CLIPS, LiveSettings(buffer_seconds=0.3))
    with pytest.raises(ValueError, match=r"timeout_seconds=0.0 is out of range: it must be above 0"):
        LiveSource(str(footage), CLIPS, LiveSettings(timeout_seconds=0.0))
