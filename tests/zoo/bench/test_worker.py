"""The measuring process: what it imports, what it says, and how a turn is taken."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import InvalidInput
from zoo.bench.child import Child
from zoo.bench.worker import Runner, Spec, peak_memory, picture, ready, shape_of, take, waits


def test_a_worker_measures_its_file(tiny: Callable[..., Path]) -> None:
    with Child("zoo.bench.worker", Spec(str(tiny()), batch=3, threads=1).to_json()) as child:
        ready = child.answer()
        assert ready["input"] == [3, 8, 8] and ready["provider"] == "CPUExecutionProvider"
        assert ready["load_ms"] > 0 and ready["first_ms"] > 0
        told = child.ask({"turn": 0.02})
        assert 1 <= len(told["samples"]) <= 300 and min(told["samples"]) > 0 and told["bare"] is None
        assert told["waited"] is None or told["waited"] >= 0
        assert 20e6 < told["memory"] < 1e9
        assert child.ask({"share": True}) == {"share": 1.0}


def test_a_run_whose_arrays_stay_on_the_device(tiny: Callable[..., Path]) -> None:
    runner = Runner(Spec(str(tiny()), batch=2, threads=1))
    runner.bare = runner.bound("input", "cpu")  # what a GPU does, on the device that every machine has
    told = runner.turn(0.01)
    assert min(told["bare"]) > 0 and min(told["samples"]) > 0


def test_a_file_that_cannot_run_is_a_problem(tiny: Callable[..., Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    for spec, word in (
        (Spec(str(broken)), "broken.onnx"),
        (Spec(str(tiny("one.onnx", batch=1)), batch=2), "takes 1 pictures"),
        (Spec(str(tmp_path / "nowhere.onnx")), "nowhere.onnx"),
    ):
        with Child("zoo.bench.worker", spec.to_json()) as child:
            assert word in child.answer()["problem"]


def test_it_imports_no_framework(tiny: Callable[..., Path]) -> None:
    code = (
        "import sys, zoo.bench.worker as w; w.Runner(w.Spec(sys.argv[1])).turn(0.01);"
        "print(sorted({'torch', 'tensorflow', 'keras', 'onnx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny())], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_turn_thins_and_has_at_least_one_run() -> None:
    count = 0

    def run() -> None:
        nonlocal count
        count += 1

    samples = take(run, 0.05, 0.0001)
    assert len(samples) == 300 and count > 300  # those between are not kept
    assert len(take(run, 0.0, 1.0)) == 1


def test_the_first_runs_are_not_counted_while_they_get_faster() -> None:
    import time

    delays = iter([0.02, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01, 0.01] + [0.001] * 1000)

    def run() -> None:
        time.sleep(next(delays))

    assert ready(run, warm=False) < 10
    assert max(take(run, 0.02, 1.0)) < 10


def test_waiting_for_a_core_is_seen(tmp_path: Path) -> None:
    for number, nanoseconds in enumerate((2_000_000_000, 500_000_000)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "schedstat").write_text(f"123 {nanoseconds} 7\n")
    assert waits(tmp_path) == 2.5
    assert waits(tmp_path / "nothing") is None
    (tmp_path / "0" / "schedstat").write_text("")
    assert waits(tmp_path) is None


@pytest.mark.parametrize(("declared", "shape"), [([None, 3, 8, 8], (4, 3, 8, 8)), (["n", 1, 2, 2], (4, 1, 2, 2))])
def test_shapes(declared: list[object], shape: tuple[int, ...]) -> None:
    assert shape_of(declared, 4) == shape


@pytest.mark.parametrize("declared", [[1, 3, 8, 8], [None, 3, "h", "w"], [None]])
def test_shapes_that_cannot_be(declared: list[object]) -> None:
    with pytest.raises(InvalidInput):
        shape_of(declared, 4)


def test_pictures_of_each_type() -> None:
    assert picture((1, 3, 8, 8), "tensor(uint8)").dtype == np.uint8
    assert picture((1, 3, 8, 8), "tensor(float16)").dtype == np.float16
    floats = picture((1, 3, 64, 64), "tensor(float)")
    assert floats.dtype == np.float32 and abs(floats.std() - 1) < 0.05


def test_memory_is_this_process_own(tmp_path: Path) -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("the system does not tell")
    block = np.ones(30_000_000)  # 240 MB
    after = peak_memory()
    assert after is not None and after >= block.nbytes
    # A process that is started here begins small, whatever this one holds.
    code = "from zoo.bench.worker import peak_memory; import json; print(json.dumps(peak_memory()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < block.nbytes
