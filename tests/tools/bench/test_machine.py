import os

from tools.bench import machine


def test_a_description_names_what_figures_depend_on():
    described = machine.describe()
    assert {"date", "processor", "cores", "load", "libraries", "FFmpeg of PyAV"} <= described.keys()
    assert all(described.values())
    assert f"of {os.cpu_count()}" in described["cores"]


def test_a_library_that_is_missing_is_said():
    assert machine.version_of("no-such-library-anywhere") == "not installed"
    assert machine.version_of("torch")[0].isdigit()
