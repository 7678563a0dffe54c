"""Which kinds of pictures and sound the FFmpeg inside PyAV decodes."""

from collections.abc import Mapping

import av
from av.codec.codec import UnknownCodecError

# Kinds that videos come in, each with the decoders of which one is enough (FFmpeg's own of AV1 needs a GPU).
KINDS: Mapping[str, tuple[str, ...]] = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1"),
    "mpeg4": ("mpeg4",),
    "aac": ("aac",),
    "mp3": ("mp3float", "mp3"),
    "opus": ("opus", "libopus"),
    "vorbis": ("vorbis", "libvorbis"),
}


def decodable(kinds: Mapping[str, tuple[str, ...]] = KINDS) -> list[str]:
    """The kinds for which there is a decoder."""
    return [kind for kind, names in kinds.items() if any(_is_there(name) for name in names)]


def _is_there(name: str) -> bool:
    try:
        av.Codec(name, "r")
    except UnknownCodecError:
        return False
    return True
