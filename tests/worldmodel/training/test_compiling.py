import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.worldmodel.training.compiled_world import CASES
from tests.worldmodel.training.toy import BATCH_SIZE, ROOT, SETTINGS, Toy
from worldmodel.training.engine import Engine, deepspeed_settings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process found that compiles."""
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "tests.worldmodel.training.compiled_world", str(folder)]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_compiled_blocks_have_the_losses_and_gradients_of_eager_ones(found: dict[str, Any], name: str):
    eager, compiled = found[name]
    # Muon orthogonalises in bfloat16, which makes more of a rounding.
    near = 1e-3 if "muon" in name else 1e-5
    assert compiled["losses"] == pytest.approx(eager["losses"], rel=near)
    assert compiled["norms"] == pytest.approx(eager["norms"], rel=near)
    assert compiled["sum"] == pytest.approx(eager["sum"], rel=near)
    assert eager["losses"][-1] < eager["losses"][0]


def test_a_compiled_run_goes_on_bit_for_bit_and_without_compiling_too(found: dict[str, Any]):
    first, *whole = found["resumed"]["whole"]
    assert first == pytest.approx(whole[0])  # the pass that counts operations draws what the step draws
    assert found["resumed"]["compiled"] == whole[-3:]
    assert found["resumed"]["eager"] == pytest.approx(whole[-3:], rel=1e-5)


def test_weights_keep_their_names(found: dict[str, Any]):
    saved, eager = found["names"]
    assert saved == eager


def test_trunk_decoder_and_views_share_what_was_compiled_once(found: dict[str, Any]):
    # What is before attention, and what is after it; torch may make one of them once more.
    assert 2 <= found["graphs"] <= 3
    assert found["breaks"] == 0


def test_a_machine_without_a_compiler_is_told_what_to_do(found: dict[str, Any]):
    assert found["error"].startswith("training.compile=true needs a compiler that works (InvalidCxxCompiler:")
    remedy = "install g++ and the headers of Python, name another compiler in the variable CXX, or leave training.comp"
    assert remedy in found["error"]


def test_what_cannot_be_compiled_is_refused():
    on = replace(SETTINGS, compile=True)
    with pytest.raises(ValueError, match=r"compile=true with training.zero_stage=3: .* use stage 0, 1 or 2"):
        deepspeed_settings(replace(on, zero_stage=3), BATCH_SIZE, 1)
    with pytest.raises(ValueError, match="compile=true with training.tensor_parallel=2: .* leave one of them out"):
        deepspeed_settings(replace(on, tensor_parallel=2), BATCH_SIZE, 2)
    with pytest.raises(ValueError, match="training.compile is for the world model's transformers: leave it out here"):
        Engine(Toy(), on, BATCH_SIZE)
