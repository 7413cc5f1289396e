"""`zoo predict` over folders and into files."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Zoo = Callable[..., Any]
Tiny = Callable[..., Path]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Seven pictures in two folders, one that is none, and a text file."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    for level in range(7):
        name = folder / ("deep" if level % 2 else ".") / f"{level}.png"
        Image.fromarray(np.full((9, 9, 3), 36 * level, np.uint8)).save(name)
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def test_a_folder_gives_what_its_pictures_give(zoo: Zoo, tiny: Tiny, album: Path) -> None:
    done = zoo("predict", tiny(), album, "--json", "--batch", 2, "--workers", 2)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "bad.jpg: not an image" in done.err
    answers = json.loads(done.out)
    files = sorted(str(path) for path in album.rglob("*.png"))
    assert [answer["image"] for answer in answers] == files
    alone = [json.loads(zoo("predict", tiny(), file, "--json").out)[0]["top"][0]["index"] for file in files]
    assert [answer["top"][0]["index"] for answer in answers] == alone


def test_lines_are_what_json_prints(zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = zoo("predict", tiny(), album, "--top", 2, "--out", out)
    assert (done.code, done.out) == (2, f"{out}: 7 pictures answered\n")
    assert done.err == f"zoo: error: 1 pictures could not be read: `error` in {out} says why\n"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == sorted(str(path) for path in album.rglob("*.*g"))
    assert len({row.pop("model") for row in rows}) == 1
    printed = json.loads(zoo("predict", tiny(), album, "--top", 2, "--json").out)
    assert [row for row in rows if "error" not in row] == printed
    (bad,) = [row for row in rows if "error" in row]
    assert bad["error"].startswith(f"{album / 'bad.jpg'}: not an image")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_it_goes_on_where_it_stopped(
    zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out, prepared = tmp_path / f"results{suffix}", list[str]()
    assert zoo("predict", tiny(), album / "deep", "--out", out).code == 0
    from runtime.model import Model

    prepare = Model.prepare_as
    monkeypatch.setattr(Model, "prepare_as", lambda *given: prepared.append(given[-1]) or prepare(*given))
    (album / "bad.jpg").unlink()
    done = zoo("predict", tiny(), album, "--out", out, "--json")
    assert json.loads(done.out) == {"out": str(out), "pictures": 4, "failed": 0, "already_there": 3}
    assert sorted(prepared) == sorted(str(path) for path in album.glob("*.png"))
    again = zoo("predict", tiny(), album, "--out", out)
    assert (again.code, again.out) == (0, f"{out}: 0 pictures answered, 7 were there already\n")


def test_columns_of_csv(zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    zoo("predict", tiny(), album, "--out", out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ranks = [f"{name}_{rank}" for rank in (1, 2, 3, 4) for name in ("label", "id", "index", "probability")]  # 4 classes
    assert list(rows[0]) == ["image", "error", "trained", *ranks, "model"]
    answers = {answer["image"]: answer for answer in json.loads(zoo("predict", tiny(), album, "--json").out)}
    for row in rows:
        if row["error"]:
            assert row["image"] == str(album / "bad.jpg")
            assert not any(row[name] for name in ranks)
            continue
        best = answers[row["image"]]["top"][0]
        assert (row["label_1"], row["id_1"], int(row["index_1"])) == (best["label"], best["id"], best["index"])
        assert float(row["probability_1"]) == pytest.approx(best["probability"], rel=1e-5)  # another batch
        assert row["trained"] == "true"


def test_another_model_is_refused(zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    zoo("predict", tiny(), album, "--out", out)
    before = out.read_bytes()
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n")
    for argv in ([tiny("other.onnx", explain_layer="relu"), album], [tiny(), album, "--labels", names],
                 [tiny(), album, "--top", 2]):  # fmt: skip
        done = zoo("predict", *argv, "--out", out)
        assert done.code == 2
        assert "or another --out" in done.err.splitlines()[-1]
        assert out.read_bytes() == before


def test_what_cannot_be_is_one_line_and_leaves_nothing(zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path) -> None:
    model = tiny()
    cases = {
        "give a file name ending in .jsonl, .csv, .parquet": [album, "--out", tmp_path / "a.xlsx"],
        "which - has not": ["-", "--out", tmp_path / "a.csv"],
        "--top must be at least 1": [album, "--out", tmp_path / "a.csv", "--top", 0],
        "workers must be at least 0": [album, "--workers", -1],
        "batch_size must be at least 1": [album, "--batch", 0],
    }
    for said, argv in cases.items():
        done = zoo("predict", model, *argv)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert said in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["album", "tiny.onnx"]


def test_other_tasks_are_lines_of_json(zoo: Zoo, tiny: Tiny, album: Path, tmp_path: Path) -> None:
    model = tiny("features.onnx", task="features", labels=None)
    done = zoo("predict", model, album, "--out", tmp_path / "a.csv")
    assert "gives features: take a .jsonl file" in done.err
    out = tmp_path / "a.jsonl"
    assert zoo("predict", model, album, "--out", out).code == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(len(row.get("features", [])) for row in rows) == [0, 4, 4, 4, 4, 4, 4, 4]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_goes_on(tiny: Tiny, album: Path, tmp_path: Path, number: signal.Signals) -> None:
    for level in range(400):
        Image.effect_noise((700, 700), level).save(album / f"noise{level}.png", compress_level=0)
    (album / "bad.jpg").unlink()
    out = tmp_path / "results.csv"
    command = [sys.executable, "-m", "zoo", "predict", str(tiny()), str(album), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (not out.exists() or out.read_bytes().count(b"\n") < 20) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in err
    kept = out.read_bytes().count(b"\n") - 1
    assert 19 <= kept < 407
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["already_there"] == kept
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["image"] for row in rows) == sorted(str(path) for path in album.rglob("*.png"))
