import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streams.addresses import content_hash
from streams.errors import MediaError
from streams.manifest import Entry
from streams.pyav.index import index_frames
from streams.pyav.pictures import PyAVReader
from streams.pyav.writer import write_video
from streams.settings import ClipSettings, SelectionSettings
from streams.source import BlockSource
from streams.videos import OPEN_VIDEOS, SoundSource, VideoSource, View
from tests.streams.ffmpeg import ffmpeg, make_video, number_of, numbered_frames, reference

RATE, HZ = 20.0, 16000
SETTINGS = ClipSettings(frames_per_second=10.0, height=64, width=96, num_frames=8, sample_hz=HZ)


def ramp(num_frames: int) -> torch.Tensor:
    """Sound that is louder the later it is, so that every slice tells its time."""
    seconds = torch.arange(round(num_frames / RATE * HZ)) / HZ
    return torch.sin(2 * torch.pi * 500 * seconds) * seconds / 10


def write_numbered(path: Path, num_frames: int = 50, sound: bool = True) -> Path:
    frames = torch.from_numpy(numbered_frames(num_frames)).permute(0, 3, 1, 2).contiguous()
    write_video(path, frames, RATE, ramp(num_frames) if sound else None, HZ)
    return path


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered(tmp_path_factory.mktemp("videos") / "a.mp4")


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_video_source_is_a_source(video: Path):
    assert isinstance(VideoSource([video], SETTINGS), BlockSource)


def test_clips_cover_the_video_evenly(video: Path):
    # 50 frames at 20 per second are 25 instants at 10 per second: four clips of eight, overlapping a little.
    source = VideoSource([video], SETTINGS)
    assert [clip.start for clip in source.clips] == [0, 6, 11, 17]
    assert len(source) == 4


def test_a_clip_holds_the_frames_shown_at_its_times(video: Path):
    source = VideoSource([video], SETTINGS)
    clip = source.read(1, draw())
    np.testing.assert_allclose(clip.seconds, np.arange(6, 14) / 10)
    assert [number_of(frame.numpy()) for frame in clip.frames] == list(range(12, 28, 2))
    assert clip.video == str(video)


def test_a_rate_above_that_of_the_file_repeats_frames(video: Path):
    source = VideoSource([video], ClipSettings(30.0, 64, 96, 9, HZ))
    assert [number_of(frame.numpy()) for frame in source.read(0, draw()).frames] == [0, 0, 1, 2, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("rate", [10.0, 15.0])
def test_every_frame_has_the_sound_from_its_time_on(video: Path, rate: float):
    settings = ClipSettings(rate, 64, 96, 8, HZ)
    clip = VideoSource([video], settings).read(1, draw())
    assert clip.sound is not None
    assert clip.sound.shape == (8, settings.samples_per_frame)
    starts = np.rint(clip.seconds.numpy() * HZ).astype(int)
    expected = torch.stack([ramp(50)[start : start + settings.samples_per_frame] for start in starts])
    assert (clip.sound - expected).abs().mean() < 3e-3
    # The last slice of the video reaches its end.
    assert VideoSource([video], settings).read(len(VideoSource([video], settings)) - 1, draw()).sound is not None


def test_a_clip_of_variable_rate_shows_what_ffmpeg_shows_at_these_times(tmp_path: Path):
    path = make_video("variable_rate", tmp_path)
    frames, seconds = reference(path, 64, 96)
    source = VideoSource([path], SETTINGS)
    for index in range(len(source)):
        clip = source.read(index, draw())
        shown = [int(np.flatnonzero(seconds <= instant + 1e-4)[-1]) for instant in clip.seconds.tolist()]
        assert [number_of(f.numpy()) for f in clip.frames] == [number_of(frames[place]) for place in shown]


def test_the_grid_starts_when_the_first_frame_is_shown(tmp_path: Path):
    source = VideoSource([make_video("late_picture", tmp_path)], SETTINGS)
    clip = source.read(0, draw())
    assert clip.seconds[0] == pytest.approx(0.5)
    assert number_of(clip.frames[0].numpy()) == 0


def test_random_starts_depend_on_the_generator_alone_and_reach_the_whole_video(video: Path):
    source = VideoSource([video], SETTINGS, random_start=True)
    starts = [
        [float(source.read(index, np.random.default_rng(seed)).seconds[0]) for seed in range(20)]
        for index in range(len(source))
    ]
    assert starts[2] == [float(source.read(2, np.random.default_rng(seed)).seconds[0]) for seed in range(20)]
    assert len(set(starts[1])) > 3
    assert min(map(min, starts)) == 0.0
    assert max(map(max, starts)) == pytest.approx(1.7)


def test_clips_read_together_are_those_read_alone_in_one_pass(video: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoSource([video], SETTINGS, random_start=True)
    assert source.blocks.tolist() == [4]
    alone = [source.read(index, np.random.default_rng(index)) for index in range(4)]
    calls = []
    frames_at = PyAVReader.frames_at
    monkeypatch.setattr(PyAVReader, "frames_at", lambda *given: calls.append(1) or frames_at(*given))
    together = source.read_together(list(range(4)), [np.random.default_rng(index) for index in range(4)])
    assert len(calls) == 1
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.seconds, other.seconds)
        assert one.sound is not None
        assert other.sound is not None
        torch.testing.assert_close(one.sound, other.sound, atol=2e-5, rtol=0)


def test_views_are_other_readings_of_the_same_frames(video: Path):
    source = VideoSource([video], SETTINGS)
    plain, backwards, hurried, shifted = (
        source.clips_at(0, [2], view)[0]
        for view in (View(), View(reverse=True), View(speed=2), View(sound_shift_seconds=0.3))
    )
    assert torch.equal(backwards.frames, plain.frames.flip(0))
    assert [number_of(frame.numpy()) for frame in hurried.frames] == list(range(4, 36, 4))
    assert backwards.sound is None
    assert hurried.sound is None
    assert torch.equal(shifted.frames, plain.frames)
    later = source.clips_at(0, [5])[0]
    assert shifted.sound is not None
    assert later.sound is not None
    torch.testing.assert_close(shifted.sound, later.sound, atol=2e-5, rtol=0)


def test_the_clips_of_a_source_are_cut_as_selected(video: Path):
    source = VideoSource([video], SETTINGS, SelectionSettings("sliding", stride_frames=4, block_clips=2))
    assert [clip.start for clip in source.clips] == [0, 4, 8, 12, 16]
    assert source.blocks.tolist() == [2, 1, 2]
    assert source.path_of(3) == str(video)


def scanned(video: Path, **changes: Any) -> Entry:
    """What a scan says of a file, as far as a source needs it."""
    found = Entry(
        path=str(video),
        size_bytes=video.stat().st_size,
        content_hash=content_hash(video),
        reader="pyav",
        index=index_frames(video),
        num_frames=50,
        cuts_seconds=np.array([1.0]),
    )
    return replace(found, **changes)


def test_files_that_were_scanned_are_opened_only_to_be_read(video: Path, monkeypatch: pytest.MonkeyPatch):
    entry = scanned(video)
    monkeypatch.setattr("streams.video.open_video", lambda *_: pytest.fail("was opened"))
    source = VideoSource([entry], SETTINGS)
    assert [clip.start for clip in source.clips] == [0, 6, 11, 17]
    assert torch.equal(source.read(2, draw()).frames, VideoSource([scanned(video)], SETTINGS).read(2, draw()).frames)


def test_no_clip_of_a_scanned_file_reaches_over_a_cut(video: Path):
    source = VideoSource([scanned(video)], SETTINGS, SelectionSettings("scenes"))
    assert [clip.start for clip in source.clips] == [0, 2, 10, 17]


def test_an_unusable_file_of_a_manifest_is_left_out_with_its_problems(video: Path):
    broken = scanned(video, path=str(video.with_name("b.mp4")), reader="", problems=("no pictures",))
    source = VideoSource([scanned(video), broken], SETTINGS)
    assert [(path.name, reason) for path, reason in source.skipped] == [("b.mp4", "no pictures; leave it out")]


def test_a_file_replaced_after_the_scan_is_refused_by_its_content(tmp_path: Path):
    path = write_numbered(tmp_path / "a.mp4", num_frames=40)
    source = VideoSource([scanned(path)], SETTINGS)
    source.read(0, draw())
    source.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MediaError, match="its sha256 is"):
        source.read(0, draw())


def test_the_bytes_of_a_scanned_file_are_read_once_while_its_status_stays(video: Path, monkeypatch: pytest.MonkeyPatch):
    checks = []
    monkeypatch.setattr("streams.videos.require_content", lambda *_: checks.append(1))
    source = VideoSource([scanned(video)], SETTINGS)
    for _ in range(3):
        source.read(0, draw())
        source.close()
    assert len(checks) == 1


def test_frames_are_resized_and_cropped(video: Path):
    clip = VideoSource([video], ClipSettings(10.0, 32, 32, 8, HZ)).read(0, draw())
    assert clip.frames.shape == (8, 3, 32, 32)


def test_a_batch_says_which_clips_have_sound(video: Path, tmp_path: Path):
    silent = write_numbered(tmp_path / "b.mp4", sound=False)
    source = VideoSource([video, silent], SETTINGS)
    batch = source.collate([source.read(0, draw()), source.read(len(source) - 1, draw())])
    assert batch.has_sound.tolist() == [True, False]
    assert batch.sound.shape == (2, 8, SETTINGS.samples_per_frame)
    assert batch.sound[1].abs().max() == 0


def test_bad_files_are_listed_with_their_reason(video: Path, tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    short = write_numbered(tmp_path / "short.mp4", num_frames=10)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.mp4")
    names = ("text.mp4", "empty.mp4", "short.mp4", "sound.mp4", "gone.mp4")
    source = VideoSource([*(tmp_path / name for name in names), video], SETTINGS)
    reasons = {path.name: reason for path, reason in source.skipped}
    assert set(reasons) == set(names)
    assert reasons[short.name] == "too short (0.50 s, a clip needs 0.80 s); leave it out"
    assert "Invalid data" in reasons["text.mp4"]
    assert "no pictures" in reasons["sound.mp4"]
    assert "no such file" in reasons["gone.mp4"]
    assert len(source) == 4


def test_no_clip_at_all_is_an_error_with_the_first_reasons(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"no clip can be read from 1 files; first reasons: .*text\.mp4: cannot"):
        VideoSource([tmp_path / "text.mp4"], SETTINGS)


def test_a_file_that_changed_is_an_error(tmp_path: Path):
    path = write_numbered(tmp_path / "a.mp4", num_frames=40)
    source = VideoSource([path], SETTINGS)
    write_numbered(path, num_frames=30)
    with pytest.raises(MediaError, match="has changed since it was probed"):
        source.read(0, draw())


def test_a_file_that_is_gone_for_a_while_is_an_error_and_then_read_again(tmp_path: Path):
    path = write_numbered(tmp_path / "a.mp4", num_frames=40)
    source = VideoSource([path], SETTINGS)
    expected = source.read(len(source) - 1, draw())
    path.rename(tmp_path / "elsewhere.mp4")
    source.opened[0].sound.close()
    source.opened[0].pictures.close()  # type: ignore[union-attr]
    for index in (0, len(source) - 1):
        with pytest.raises(MediaError, match="(?i)no such file"):
            source.read(index, draw())
        assert not source.opened
    (tmp_path / "elsewhere.mp4").rename(path)
    assert torch.equal(source.read(len(source) - 1, draw()).frames, expected.frames)
    source.close()


def test_only_a_few_readers_stay_open_and_none_is_pickled(tmp_path: Path):
    paths = [write_numbered(tmp_path / f"{number}.mp4", num_frames=20) for number in range(OPEN_VIDEOS + 2)]
    source = VideoSource(paths, SETTINGS)
    for index in range(len(source)):
        source.read(index, draw())
    assert len(source.opened) == OPEN_VIDEOS
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy.opened) == 0
    assert torch.equal(copy.read(0, draw()).frames, source.read(0, draw()).frames)
    source.close()
    assert len(source.opened) == 0


def test_decord_reads_the_same_clips(video: Path):
    settings = ClipSettings(10.0, 64, 96, 8, HZ, reader="decord")
    ours, theirs = VideoSource([video], SETTINGS).read(2, draw()), VideoSource([video], settings).read(2, draw())
    # decord does not interpolate colours, which shows at edges.
    assert (ours.frames.int() - theirs.frames.int()).abs().float().mean() < 2.5


def test_sound_is_read_alone_as_it_is_read_beside_pictures(video: Path):
    whole = VideoSource([video], SETTINGS, random_start=True).read(0, draw())
    source = SoundSource([video], SETTINGS, random_start=True)
    alone = source.read(0, draw())
    assert whole.sound is not None
    assert alone.sound is not None
    assert torch.equal(alone.sound, whole.sound)
    assert torch.equal(alone.seconds, whole.seconds)
    assert alone.frames.shape == (SETTINGS.num_frames, 3, 0, 0)
    assert source.collate([alone, alone]).sound.shape[:2] == (2, SETTINGS.num_frames)
