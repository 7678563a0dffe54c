from pathlib import Path

import pytest

from streams.errors import MediaError
from streams.pyav.facts import measure
from streams.pyav.soundtrack import SoundTrack
from streams.pyav.sync import measure_sync
from tests.streams.ffmpeg import ffmpeg, make_video
from tests.streams.pyav.sounds import AAC, encode, make_sound


@pytest.mark.parametrize("kind", ["aac_mp4", "aac_ts", "mp3_avi", "opus_webm", "wma_asf", "mp2_mpg"])
def test_the_start_is_the_same_however_often_it_is_gone_to(kind: str, tmp_path: Path):
    track = SoundTrack(make_sound(kind, tmp_path, 3.0))
    first = [(frame.pts, frame.samples, frame.to_ndarray().tobytes()) for frame in track.from_start()]
    for _ in range(2):
        assert len(list(zip(range(20), track.from_ticks(first[40][0] or 0), strict=False))) == 20
        again = [(frame.pts, frame.samples, frame.to_ndarray().tobytes()) for frame in track.from_start()]
        assert again[:20] == first[:20]
    track.close()


@pytest.mark.parametrize("kind", ["aac_mp4", "aac_fragmented", "aac_flv", "aac_ts", "mp3_mkv", "pcm_mov", "mp2_mpg"])
def test_a_seek_lands_at_the_packet_of_a_time(kind: str, tmp_path: Path):
    track = SoundTrack(make_sound(kind, tmp_path, 3.0))
    times = [frame.pts for frame in track.from_start() if frame.pts is not None]
    for wanted in (len(times) // 2, len(times) // 4, len(times) - 3):
        found = next(frame.pts for frame in track.from_ticks(times[wanted]))
        # The first packet may be lost where the codec needs the one before.
        assert found is not None
        assert times.index(found) - wanted in (0, 1, 2)
    track.close()


def test_priming_is_known(tmp_path: Path):
    for name, encoding, num in (("a.mp4", AAC, 1024), ("a.mkv", ("-c:a", "libopus"), 312), ("a.ts", AAC, 0)):
        track = SoundTrack(encode(tmp_path / name, encoding, seconds=1.0))
        list(track.from_start())
        assert track.priming_samples == num
        track.close()


def test_times_of_vorbis_that_lag_by_a_packet_are_undone(tmp_path: Path):
    plain = make_sound("vorbis_webm", tmp_path, 4.0)
    # Blocks of two sizes, or there is nothing to see.
    straight = SoundTrack(plain)
    true = [(frame.pts, frame.samples) for frame in straight.from_start()]
    assert len({length for _, length in true}) > 1
    assert straight.lag_ticks is None
    straight.close()
    # Each packet gets the time at which its own sound ends, which is that of the next one's.
    ffmpeg("-i", plain, "-map", "0", "-c", "copy", "-bsf:a", "setts=ts=if(gt(NEXT_PTS\\,0)\\,NEXT_PTS\\,TS+DURATION)",
           tmp_path / "lagging.webm")  # fmt: skip
    lagging = SoundTrack(tmp_path / "lagging.webm")
    frames = [(frame.pts or 0, frame.samples) for frame in lagging.from_start()]
    assert lagging.lag_ticks is not None
    lagging.close()
    starts = [pts for pts, _ in frames]
    for (before, length), start in zip(frames[:-2], starts[1:], strict=False):
        assert start - before == pytest.approx(length / 44.1, abs=1.5)
    # The scan sees it as the reader does.
    _, sound, _ = measure(tmp_path / "lagging.webm", 10.0)
    sync = measure_sync(tmp_path / "lagging.webm")
    assert sound is not None
    assert sync is not None
    assert sound.drift_seconds == pytest.approx(sync.drift_seconds, abs=1e-9)
    assert sound.gaps == []


def test_a_file_without_sound_has_no_track(tmp_path: Path):
    track = SoundTrack(make_video("constant", tmp_path))
    assert track.track is None
    assert track.codec == "none"
    track.close()


def test_sound_of_an_unknown_format_is_a_media_error(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", AAC, seconds=1.0)
    content = path.read_bytes()
    told = content.rindex(b"stsd", 0, content.index(b"mp4a"))
    path.write_bytes(content[:told] + b"free" + content[told + 4 :])
    with pytest.raises(MediaError, match="its sound is in an unknown format; write it anew with ffmpeg"):
        SoundTrack(path)
