"""``--score``: from a folder of pictures to a table, for people and for programs."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InvalidInput, UnknownName
from runtime.explain import EXPLAINERS, Explainer
from runtime.explain.faithfulness import Box
from runtime.explain.scoring import BASELINES, Case
from runtime.model import load
from zoo.explain_score import add_arguments, methods, read_boxes, run_score, spread


@pytest.fixture
def score(lenet_file: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs it on LeNet as ``zoo explain`` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--method", nargs="+")
    parser.add_argument("--layer")
    parser.add_argument("--json", action="store_true")
    add_arguments(parser)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        args = parser.parse_args([str(word) for word in (lenet_file, *words)])
        with load(args.file, threads=1) as model:
            code = run_score(args, model)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def digits(root: Path) -> Path:
    return root / "exporters" / "samples" / "digits"


def test_programs_get_one_object(score: Callable[..., Any], digits: Path, lenet_file: Path) -> None:
    code, out, err = score("--score", digits, "--limit", 4, "--method", "saliency", "grad-cam", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["file"], found["images"]) == (str(lenet_file), 4)
    rows = {row["method"]: row for row in found["rows"]}
    assert set(rows) == {*BASELINES, "saliency", "grad-cam"}
    differences = [row["difference"] for row in found["rows"]]
    assert differences == sorted(differences, reverse=True)
    for row in found["rows"]:
        assert row["difference"] == pytest.approx(row["insertion"] - row["deletion"])
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]
        assert row["pointing"] is None
        assert row["baseline"] == (row["method"] in BASELINES)
        assert (row["milliseconds"] is None) == row["baseline"]
    again = json.loads(score("--score", digits, "--limit", 4, "--method", "saliency", "grad-cam", "--json")[1])
    for row in (*found["rows"], *again["rows"]):
        del row["milliseconds"]
    assert again == found


def test_people_get_a_table_and_what_it_means(score: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    for path in sorted(digits.glob("*.png"))[:3]:
        Image.open(path).save(tmp_path / path.name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, out, err = score("--score", tmp_path, "--method", "cam", "saliency")
    assert code == 2
    assert err.count("broken.png") == 1
    assert err.count("zoo: note: cam is left out: cam needs global average pooling") == 1
    assert "3 pictures" in out.splitlines()[0]
    assert "pointing" not in out
    assert "(random pixels)" in out
    named = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert sorted(named) == ["(centre)", "(random 7 x 7)", "(random pixels)", "saliency"]


def test_a_map_of_the_picture_is_called_one(
    score: Callable[..., Any], digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brightness(subject: Any, pixels: np.ndarray, index: int) -> np.ndarray:
        return pixels[0].mean(axis=0)

    monkeypatch.setitem(EXPLAINERS, "brightness", Explainer(brightness, "input", "", "", signed=True))
    _, out, _ = score("--score", digits, "--limit", 3, "--method", "grad-cam", "brightness")
    told = [line for line in out.splitlines() if "weights are shuffled (" in line]
    (line,) = told
    assert line.startswith("brightness: hardly changes when the weights are shuffled (1.00): it shows the picture")


def test_boxes_add_a_column(score: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("file,label,xmin,ymin,xmax,ymax\n3.png,3,0,0,999,999\n7.png,7,0,0,999,999\n7.png,7,1,1,2,2\n")
    code, out, _ = score("--score", digits, "--boxes", table, "--method", "saliency", "--json")
    found = json.loads(out)
    assert (code, found["images"]) == (0, 2)
    assert {row["pointing"] for row in found["rows"]} == {1.0}
    assert "pointing" in score("--score", digits, "--boxes", table, "--method", "saliency")[1]


def test_the_slow_methods_are_asked_for() -> None:
    assert set(EXPLAINERS) - set(methods(None)) == {"score-cam", "rise"}
    assert methods(["all"]) == list(EXPLAINERS)
    assert methods(["rise", "all"])[0] == "rise"
    assert methods(["rise", "grad-cam", "rise"]) == ["rise", "grad-cam"]
    with pytest.raises(UnknownName, match="no method 'gradcam': did you mean grad-cam"):
        methods(["gradcam"])


def test_a_few_pictures_are_spread_over_all() -> None:
    cases = [Case(str(number)) for number in range(10)]
    assert [case.image for case in spread(cases, 3)] == ["0", "3", "6"]
    assert spread(cases, 99) == cases
    with pytest.raises(InvalidInput, match="--limit 0"):
        spread(cases, 0)


def test_boxes_are_read_by_picture_and_class(tiny: Callable[..., Path], tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(
        "label,file,xmin,ymin,xmax,ymax,author\nred,a.png,1,2,3.5,4,x\nn3,a.png,5,6,7,8,x\n0,a.png,0,0,9,9,x\n"
    )
    with load(tiny()) as model:
        found = read_boxes(table, tmp_path / "photos", model)
    assert [(case.image, case.target, case.boxes) for case in found] == [
        (tmp_path / "photos" / "a.png", 0, (Box(1, 2, 3.5, 4), Box(0, 0, 9, 9))),
        (tmp_path / "photos" / "a.png", 2, (Box(5, 6, 7, 8),)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,red\n", "line 2: no xmin: the columns are file,label"),
        ("file,label,xmin,ymin,xmax,ymax\n", "holds no boxes"),
        ("file,label,xmin,ymin,xmax,ymax\na.png,red,1,2,3\n", "line 2: no ymax"),
        ("file,label,xmin,ymin,xmax,ymax\na.png,red,1,2,3,x\n", "line 2: could not convert"),
        ("file,label,xmin,ymin,xmax,ymax\na.png,pink,1,2,3,4\n", "line 2: label 'pink' is no class name"),
        ("file,label,xmin,ymin,xmax,ymax\na.png,red,3,2,1,4\n", "line 2: the box ends before it begins"),
    ],
)
def test_boxes_that_cannot_be_read(tiny: Callable[..., Path], tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(text)
    with load(tiny()) as model:
        with pytest.raises(InvalidInput, match=message):
            read_boxes(table, tmp_path, model)
        with pytest.raises(InvalidInput, match="not a readable CSV"):
            read_boxes(tmp_path / "none.csv", tmp_path, model)


def test_a_folder_that_is_not_there(score: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file or folder"):
        score("--score", tmp_path / "none")
