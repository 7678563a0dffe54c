"""What the figures were measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.bench import ffmpeg

LIBRARIES = ("torch", "av", "torchcodec", "decord", "numpy")


def describe() -> dict[str, str]:
    """Processor, cores, load, versions and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "load": load(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version_of(name)}" for name in LIBRARIES),
        "FFmpeg of PyAV": libavcodec_of_pyav(),
        "FFmpeg of TorchCodec": ffmpeg_of_torchcodec(),
        "ffmpeg program": ffmpeg.version(),
    }


def load() -> str:
    """Processes that wanted a core over the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def processor() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version_of(library: str) -> str:
    """Version of an installed package."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def libavcodec_of_pyav() -> str:
    """Version of the decoders that PyAV uses."""
    from tools.bench.peers.pyav import library_versions

    return ".".join(map(str, library_versions()["libavcodec"]))


def ffmpeg_of_torchcodec() -> str:
    """Version of FFmpeg that TorchCodec found on this machine."""
    try:
        from tools.bench.peers.torchcodec import ffmpeg_version
    except ImportError:
        return "not installed"
    return ffmpeg_version()
