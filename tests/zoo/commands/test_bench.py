"""``zoo bench`` as it is typed: what it writes, prints and refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.zoo.bench.records import make_record
from zoo.bench.record import SCHEMA_FILE, write

Zoo = Callable[..., Any]
SHORT = ("--budget", "0.05", "--rounds", "2", "--threads", "1")


def test_a_run_writes_prints_and_is_valid(zoo: Zoo, tiny: Callable[..., Path], tmp_path: Path) -> None:
    files = {name: tmp_path / f"bench.{name}" for name in ("json", "csv", "markdown", "html")}
    done = zoo(
        "bench", tiny(), *SHORT, "--json", "-o", files["json"], "--csv", files["csv"], "--markdown", files["markdown"],
        "--html", files["html"],
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads(done.out)
    jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    assert json.loads(files["json"].read_text(encoding="utf-8")) == record
    assert [row["name"] for row in record["rows"]] == ["tiny"]
    assert all("tiny" in files[name].read_text(encoding="utf-8") for name in ("csv", "markdown", "html"))
    shown = zoo("bench", "--read", files["json"])
    assert shown.code == 0 and "tiny" in shown.out and "CPU ms" in shown.out


def test_beside_published_figures(zoo: Zoo, tmp_path: Path) -> None:
    write(make_record(), tmp_path / "a.json")
    done = zoo("bench", "--read", tmp_path / "a.json", "--against", "keras", "--html", tmp_path / "a.html")
    assert done.code == 0, done.err
    assert "Spearman" in done.out or "rank" in done.out
    assert "Keras Applications" in (tmp_path / "a.html").read_text(encoding="utf-8")
    told = json.loads(zoo("bench", "--read", tmp_path / "a.json", "--against", "keras", "--json").out)
    assert {"machine", "rows", "against"} <= told.keys()


def test_comparisons_have_exit_codes_for_ci(zoo: Zoo, tmp_path: Path) -> None:
    for name, slower in (("old", 1.0), ("same", 1.01), ("slow", 1.6)):
        write(make_record(slower=slower), tmp_path / f"{name}.json")
    same = zoo("bench", "--compare", tmp_path / "old.json", tmp_path / "same.json")
    assert same.code == 0, same.out
    slow = zoo("bench", "--compare", tmp_path / "old.json", tmp_path / "slow.json")
    assert slow.code == 1 and "slower" in slow.out and "mobilenet_v2" in slow.out
    told = json.loads(zoo("bench", "--compare", tmp_path / "old.json", tmp_path / "slow.json", "--json").out)
    assert any(change["worse"] for change in told["comparison"]["changes"])
    assert zoo("bench", "--compare", tmp_path / "old.json", tmp_path / "slow.json", "--margin", "80").code == 0


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--compare", "a", "b", "c"), "one record"),
        (("--compare", "nowhere.json"), "nowhere.json"),
        (("--read", "nowhere.json"), "nowhere.json"),
        (("nowhere.onnx",), "no such file"),
        (("mobilenut",), "mobilenut"),
        (("lenet5", "--quick"), "--quick"),
        (("lenet5", "--html", "nowhere/a.html"), "no such folder"),
        (("lenet5", "--threads", "0"), "--threads"),
        (("lenet5", "--data", "nowhere"), "no such file or folder"),
        (("lenet5", "--precision", "fp8"), "fp8"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(
    zoo: Zoo, argv: tuple[str, ...], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = zoo("bench", *argv)
    assert done.code == 2 and word in done.err and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())
