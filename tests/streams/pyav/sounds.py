"""Sound files of every kind by the ffmpeg program, and how far two sounds are apart in time."""

from pathlib import Path

import numpy as np

from tests.streams.ffmpeg import ffmpeg

SECONDS = 8.0
# Noise of two colours and a sweep: any shift is seen anywhere.
NOISE = "anoisesrc=d={0}:c=pink:r=48000:a=0.4:seed=1"
SWEEP = "aevalsrc=0.3*sin(2*PI*(300+50*t)*t):d={0}:s=48000"
PICTURE = "testsrc2=s=64x48:d={0}:r=25"
# AAC without noise substitution: decoders invent that noise anew at each reading.
AAC = ("-c:a", "aac", "-b:a", "128k", "-aac_pns", "0")

# Name of the file, how ffmpeg encodes its sound, and how far apart (in samples' values) readings of one place may be:
# AC-3 and MPEG audio add dither, and some of Opus goes on from before.
KINDS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "aac_mp4": ("a.mp4", AAC, 1e-5),
    "aac_44k": ("a.mp4", (*AAC, "-ar", "44100"), 1e-5),
    "aac_8k_mono": ("a.mp4", (*AAC[:2], "-b:a", "24k", "-aac_pns", "0", "-ar", "8000", "-ac", "1"), 1e-5),
    "aac_96k": ("a.mp4", (*AAC, "-ar", "96000"), 1e-5),
    "aac_surround": ("a.mp4", (*AAC, "-ac", "6"), 1e-5),
    "aac_fragmented": ("a.mp4", (*AAC, "-movflags", "frag_keyframe+empty_moov"), 1e-5),
    "aac_mkv": ("a.mkv", (*AAC, "-ar", "44100"), 1e-5),
    "aac_ts": ("a.ts", (*AAC, "-ar", "44100"), 1e-5),
    "aac_flv": ("a.flv", (*AAC, "-ar", "44100"), 1e-5),
    "mp3_mp4": ("a.mp4", ("-c:a", "libmp3lame", "-ar", "44100"), 1e-5),
    "mp3_avi": ("a.avi", ("-c:a", "libmp3lame", "-ar", "22050"), 1e-5),
    "mp3_mkv": ("a.mkv", ("-c:a", "libmp3lame", "-ar", "44100"), 1e-5),
    "opus_mkv": ("a.mkv", ("-c:a", "libopus"), 1e-4),
    "opus_webm": ("a.webm", ("-c:a", "libopus", "-ac", "1"), 1e-4),
    "opus_mp4": ("a.mp4", ("-c:a", "libopus"), 1e-4),
    "vorbis_webm": ("a.webm", ("-c:a", "libvorbis", "-ar", "44100"), 1e-5),
    "ac3_mkv": ("a.mkv", ("-c:a", "ac3", "-ac", "6"), 1e-2),
    "ac3_ts": ("a.ts", ("-c:a", "ac3"), 1e-2),
    "mp2_mpg": ("a.mpg", ("-c:a", "mp2"), 2e-3),
    "pcm_mov": ("a.mov", ("-c:a", "pcm_s16le"), 1e-5),
    "pcm_24_mov": ("a.mov", ("-c:a", "pcm_s24le", "-ar", "96000"), 1e-5),
    "pcm_8_avi": ("a.avi", ("-c:a", "pcm_u8", "-ar", "8000", "-ac", "1"), 1e-5),
    "pcm_surround": ("a.mkv", ("-c:a", "pcm_s16le", "-ac", "6", "-ar", "11025"), 1e-5),
    "flac_mkv": ("a.mkv", ("-c:a", "flac"), 1e-5),
    "flac_32k": ("a.mkv", ("-c:a", "flac", "-ar", "32000", "-ac", "1"), 1e-5),
    "wma_asf": ("a.wmv", ("-c:a", "wmav2", "-ar", "44100"), 1e-5),
}
CODECS = {".mpg": "mpeg2video", ".ts": "mpeg2video", ".flv": "flv", ".webm": "libvpx", ".wmv": "wmv2"}


def make_sound(kind: str, folder: Path, seconds: float = SECONDS) -> Path:
    """A video whose sound is of one kind; left and right differ."""
    name, encoding, _ = KINDS[kind]
    return encode(folder / name, encoding, seconds=seconds)


def encode(path: Path, encoding: tuple[str, ...], graph: str = "", seconds: float = SECONDS) -> Path:
    """Writes noise and sweep beside pictures; `graph` is applied to the stereo sound."""
    inputs = [part for source in (NOISE, SWEEP, PICTURE) for part in ("-f", "lavfi", "-i", source.format(seconds))]
    picture = ("-c:v", CODECS.get(path.suffix, "mpeg4"), "-g", "50")
    speed = ("-deadline", "realtime", "-cpu-used", "8") if path.suffix == ".webm" else ()
    mixed = f"[0][1]amerge=inputs=2{graph}[a]"
    ffmpeg(*inputs, "-filter_complex", mixed, "-map", "[a]", "-map", "2:v", *picture, *speed, *encoding, path)
    return path


def best_shift(sound: np.ndarray, whole: np.ndarray, first: int, reach: int) -> tuple[int, float]:
    """How many samples later than at `first` a part is found in the whole, and how far off it is there on average."""
    around = np.pad(whole, (reach, reach + len(sound)))
    apart = [
        float(np.abs(sound - around[first + reach + shift :][: len(sound)]).mean())
        for shift in range(-reach, reach + 1)
    ]
    # The middle wins where many are equal, as in silence.
    order = sorted(range(2 * reach + 1), key=lambda place: (apart[place], abs(place - reach)))
    return order[0] - reach, apart[order[0]]
