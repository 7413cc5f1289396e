"""``zoo tune``: what is found is shown, remembered, explained, and used by the other commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.engines import ENGINES
from runtime.errors import InvalidInput
from runtime.tuning.record import Setting, Trial
from tests.conftest import Outcome
from zoo.commands.tune import seconds, untried

Zoo = Callable[..., Outcome]


@pytest.fixture(scope="module")
def tuned(lenet_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from zoo.cli import main

    path = shutil.copy(lenet_file, tmp_path_factory.mktemp("tune"))
    assert main(["tune", str(path), "--budget", "0.5s"]) == 0
    return Path(path)


def test_it_says_what_it_found_and_remembers(zoo: Zoo, tuned: Path) -> None:
    done = zoo("tune", tuned, "--explain", "--json")
    assert done.code == 0 and not done.err
    record = json.loads(done.out)
    assert {trial["setting"]["engine"] for trial in record["trials"]} == set(ENGINES)
    assert record["chosen"]["engine"] in ("onnxruntime", "openvino")
    shown = zoo("tune", tuned, "--explain")
    assert "scores within 0.01" in shown.out and "chosen" in shown.out
    assert f'zoo.load("{tuned}", engine="auto") runs {tuned.name}: {record["chosen"]["engine"]}' in shown.out
    assert shown.out.count("tensorrt") == 1 or "times the time" in shown.out, "one line for what cannot be used"


@pytest.mark.parametrize(("made_for", "missing"), [((), []), (("x86-vnni",), ["openvino"]), (("x86", "openvino"), [])])
def test_what_was_not_there_to_try_is_said(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, made_for: tuple[str, ...], missing: list[str]
) -> None:
    def told_by(path: Path) -> Any:
        target = path.stem if path.stem in made_for else None
        return SimpleNamespace(quantization=target and SimpleNamespace(target=target, precision="int8"))

    monkeypatch.setattr("runtime.tuning.search.told_by", told_by)
    settings = [Setting(f"{name}.onnx", engine, "fp32", 1) for name in ("float", *made_for) for engine in ENGINES]
    trials = [Trial(one, error=0.0 if ENGINES[one.engine].device == "cpu" else None) for one in settings]
    assert untried(tuned, SimpleNamespace(trials=trials)) == missing  # type: ignore[arg-type]


def test_other_commands_take_it(zoo: Zoo, tuned: Path, root: Path) -> None:
    digit = sorted((root / "exporters" / "samples" / "digits").glob("*.png"))[0]
    plain, auto = (json.loads(zoo("predict", tuned, digit, "--json", *more).out) for more in ((), ("--engine", "auto")))
    assert [guess["label"] for guess in plain[0]["top"]] == [guess["label"] for guess in auto[0]["top"]]


def test_on_labelled_pictures(zoo: Zoo, lenet_file: Path, tmp_path: Path, root: Path) -> None:
    path = shutil.copy(lenet_file, tmp_path)
    digits = root / "exporters" / "samples" / "digits"
    done = zoo("tune", path, "--data", digits, "--max-drop", "0", "--budget", "0.3", "--limit", "4", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["asked"]["max_drop"] == 0 and record["asked"]["pictures"] <= 4
    assert all(trial["agreement"] == 100 for trial in record["trials"] if trial["ms"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--explain"], "run `zoo tune"),
        (["--max-drop", "1"], "add --data"),
        (["--budget", "soon"], "60s"),
        (["--limit", "0"], "--limit 0"),
        (["--device", "npu"], "unknown device"),
        (["--data", "nowhere"], "nowhere"),
        (["--threads", "0"], "threads"),
    ],
)
def test_mistakes_are_one_line(zoo: Zoo, lenet_file: Path, tmp_path: Path, argv: list[str], said: str) -> None:
    path = shutil.copy(lenet_file, tmp_path)
    done = zoo("tune", path, *argv)
    assert done.code == 2 and not done.out
    assert said in done.err and done.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [lenet_file.name]


def test_times_as_people_write_them() -> None:
    assert [seconds(text) for text in ("60", "60s", "1.5m", "2 min")] == [60, 60, 90, 120]
    for text in ("", "s", "1h", "-1", "1e3"):
        with pytest.raises(InvalidInput):
            seconds(text)
