import os
import threading
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from av.error import InvalidDataError

from streams.errors import MediaError
from streams.pyav.live import LiveFeed, Picture, Pipe, hide_password, kind_of
from streams.pyav.live_sound import Sound
from streams.settings import LiveSettings
from tests.streams.ffmpeg import ffmpeg, number_of
from tests.streams.live_servers import NUM_FRAMES, SOUND_HZ, make_footage


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("live") / "a.ts")


def feed_of(path: Path | str, **settings: object) -> LiveFeed:
    return LiveFeed(str(path), LiveSettings(**settings), SOUND_HZ, Event())  # type: ignore[arg-type]


def test_one_pass_gives_all_pictures_and_all_sound(footage: Path):
    with feed_of(footage) as feed:
        parts = list(feed.parts())
        pictures = [part for part in parts if isinstance(part, Picture)]
        assert [number_of(feed.scaled(part, 64, 96).numpy()) for part in pictures] == list(range(NUM_FRAMES))
        assert np.diff([part.seconds for part in pictures]) == pytest.approx(1 / 25)
    samples = np.concatenate([part.samples for part in parts if isinstance(part, Sound)])
    assert len(samples) == pytest.approx(2.4 * SOUND_HZ, abs=2048 + 1024)
    # They come together: neither waits for the end of the other.
    assert isinstance(parts[-1], Sound) or isinstance(parts[-2], Picture)
    assert any(isinstance(part, Sound) for part in parts[: len(parts) // 2])


def test_pictures_are_upright(tmp_path: Path):
    plain = make_footage(tmp_path / "a.mp4")
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", tmp_path / "b.mp4")
    with feed_of(plain) as feed, feed_of(tmp_path / "b.mp4") as turned:
        first = next(part for part in feed.parts() if isinstance(part, Picture))
        other = next(part for part in turned.parts() if isinstance(part, Picture))
        upright = feed.scaled(first, 64, 96).numpy()
        np.testing.assert_array_equal(turned.scaled(other, 96, 64).numpy(), np.rot90(upright, axes=(1, 2)))


def test_a_source_that_is_joined_late_begins_at_a_keyframe(footage: Path, tmp_path: Path):
    data = footage.read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(data[len(data) // 3 // 188 * 188 :])
    with feed_of(path) as feed:
        numbers = [number_of(feed.scaled(p, 64, 96).numpy()) for p in feed.parts() if isinstance(p, Picture)]
    assert numbers == list(range(numbers[0], NUM_FRAMES))
    assert numbers[0] % 12 == 0
    assert numbers[0] > 0


def test_damaged_packets_are_counted_and_the_rest_goes_on(footage: Path, tmp_path: Path):
    data = bytearray(footage.read_bytes())
    generator = np.random.default_rng(0)
    for place in generator.integers(len(data) // 4, len(data) // 2, 60):
        data[place] ^= 255
    path = tmp_path / "damaged.ts"
    path.write_bytes(data)
    with feed_of(path) as feed:
        pictures = [part for part in feed.parts() if isinstance(part, Picture)]
    assert feed.num_damaged > 0
    assert NUM_FRAMES // 2 < len(pictures) < NUM_FRAMES


def test_kinds_of_addresses(footage: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    assert kind_of(str(footage)) == "file"
    assert kind_of(str(tmp_path / "fifo")) == kind_of("pipe:0") == kind_of("pipe:") == kind_of("-") == "pipe"
    assert kind_of("/dev/null") == "camera"  # a device, whatever is behind it
    assert kind_of("RTSP://host/stream") == "rtsp"
    assert kind_of("https://host/a.m3u8") == "https"


def test_addresses_that_lead_nowhere_are_refused(tmp_path: Path):
    with pytest.raises(MediaError, match="gone.ts: no such device or file; give a camera"):
        kind_of(str(tmp_path / "gone.ts"))
    with pytest.raises(MediaError, match="is a folder; give a camera"):
        kind_of(str(tmp_path))
    with pytest.raises(
        MediaError, match=r"^gopher://host/a: unknown kind of address; give rtsp://, .*, a device or a file"
    ):
        kind_of("gopher://me:secret@host/a")


def test_passwords_are_hidden():
    assert hide_password("rtsp://me:secret@host:554/a@b") == "rtsp://host:554/a@b"
    assert hide_password("http://host/a?x=1@2") == "http://host/a?x=1@2"


def test_a_device_that_is_no_camera_is_an_error():
    with pytest.raises(MediaError, match=r"/dev/null: cannot be opened \(.*\); look at the device and options"):
        feed_of("/dev/null")


def test_a_file_without_pictures_is_an_error(tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.wav")
    with pytest.raises(MediaError, match="a.wav: has no pictures"):
        feed_of(tmp_path / "a.wav")
    (tmp_path / "text.ts").write_text("no video")
    with pytest.raises(MediaError, match=r"text.ts: cannot be opened \(.*\); look at the address"):
        feed_of(tmp_path / "text.ts")


def test_a_picture_that_cannot_be_scaled_is_an_error(footage: Path):
    class Fault:
        def __call__(self, *_: object) -> None:
            raise InvalidDataError(1, "no such format")

    with feed_of(footage) as feed:
        picture = next(part for part in feed.parts() if isinstance(part, Picture))
        feed.scaler = Fault()  # type: ignore[assignment]
        with pytest.raises(MediaError, match=r"a.ts: cannot be shown \(no such format\)"):
            feed.scaled(picture, 64, 96)


def test_options_reach_ffmpeg_but_open_no_more_than_is_allowed(footage: Path, tmp_path: Path):
    with feed_of(footage, format="mpegts", options={"format_whitelist": "hls", "probesize": "100000"}) as feed:
        assert feed.container is not None
        assert feed.container.format.name == "mpegts"
    (tmp_path / "a.txt").write_text(f"ffconcat version 1.0\nfile '{footage}'\n")
    with pytest.raises(MediaError, match="cannot be opened"):
        feed_of(tmp_path / "a.txt", format="concat", options={"format_whitelist": "concat", "safe": "0"})


def test_a_pipe_waits_for_a_bounded_time_and_ends_when_it_is_told(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    stop = Event()
    pipe = Pipe(str(tmp_path / "fifo"), 0.1, stop)
    with pytest.raises(TimeoutError):
        pipe.read(10)
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.write(writer, b"abc")
    assert pipe.read(10) == b"abc"
    patient = Pipe(f"pipe:{pipe.descriptor}", 100.0, stop)
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(patient.read(10)))
    reading.start()
    stop.set()
    reading.join(10)
    assert found == [b""]
    stop.clear()
    os.close(writer)
    assert pipe.read(10) == b""
    for one in (pipe, patient):
        one.close()
