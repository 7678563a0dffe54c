import subprocess
import sys


def test_help_is_answered_without_heavy_libraries():
    program = (
        "import sys; from tools.latents import main\n"
        "try: main(['build', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'zarr', 'av', 'numpy'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--clips.num_frames" in done.stdout
