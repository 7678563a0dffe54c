"""One tiny file of footage that all tests of the benchmarks share."""

from pathlib import Path

import pytest

from tools.bench.footage import Footage, make_footage
from tools.bench.settings import StreamsSettings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("footage")


@pytest.fixture(scope="session")
def settings(folder: Path) -> StreamsSettings:
    return StreamsSettings(heights=[64], gops=[12], seconds=3.0, folder=str(folder), rounds=2, round_seconds=0.02)


@pytest.fixture(scope="session")
def footage(folder: Path, settings: StreamsSettings) -> list[Footage]:
    return list(make_footage(folder, settings.heights, settings.gops, settings.seconds))
