from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.errors import InvalidImage, InvalidInput
from runtime.metadata import Labels
from zoo.datasets import open_dataset
from zoo.evaluate import evaluate

LABELS = Labels(names=("red", "green", "blue", "grey"), ids=("n1", "n2", "n3", "n4"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(6):
        Image.new("RGB", (10, 12), (40 * index, 255 - 40 * index, 7)).save(folder / f"{index}.png")
    return folder


def indices(data: Path, **options: Any) -> list[int]:
    return [sample.index for sample in open_dataset(data, LABELS, **options)]


def write_idx(folder: Path, stem: str, images: np.ndarray, answers: list[int], suffix: str = "") -> Path:
    write = (lambda path, data: path.write_bytes(gzip.compress(data))) if suffix else Path.write_bytes
    path = folder / f"{stem}-images-idx3-ubyte{suffix}"
    write(path, struct.pack(">4I", 2051, *images.shape) + images.tobytes())
    write(folder / f"{stem}-labels-idx1-ubyte{suffix}", struct.pack(">2I", 2049, len(answers)) + bytes(answers))
    return path


def test_folder_per_class(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "classes"
    for index, name in enumerate(["green", "n4", "0", "blue/nested"]):
        (root / name).mkdir(parents=True)
        (pictures / f"{index}.png").rename(root / name / "p.PNG")
    (root / "green" / "notes.txt").write_text("not a picture")
    found = {sample.image.relative_to(root).parts[0]: sample.index for sample in open_dataset(root, LABELS)}
    assert found == {"green": 1, "n4": 3, "0": 0, "blue": 2}
    (root / "purple").mkdir()
    with pytest.raises(InvalidInput, match="label 'purple' is no class name"):
        open_dataset(root, LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n0.png,red\n1.png,n2\n2.png,2\n",
        "0.png,red\n1.png,n2\n2.png,2\n",
        "author,imagenet_index,filename\nme,0,0.png\nme,1,1.png\nme,2,2.png\n",
        "0.png\tred\n1.png\tgreen\n2.png\tblue\n",
        "\ufefffile,label\n0.png,red\n1.png,green\n2.png,blue\n\n",
    ],
)
def test_csv(pictures: Path, text: str) -> None:
    table = pictures / "split.csv"
    table.write_text(text, encoding="utf-8")
    assert indices(table) == [0, 1, 2]
    assert indices(table, skip=1, limit=1) == [1]


def test_csv_elsewhere_and_folder_with_labels_csv(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "split.csv"
    table.write_text("file,label\n0.png,red\n")
    assert indices(table, images=pictures) == [0]
    with monkeypatch.context() as context:
        context.chdir(pictures)
        assert indices(table) == [0]
    with pytest.raises(InvalidInput, match=r"split\.csv, line 2: no such picture .*--images DIR"):
        indices(table)
    table.rename(pictures / "labels.csv")
    assert indices(pictures) == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,c\n1,2,3\n", "needs a header"),
        ("file,label\n0.png\n", "line 2: too few columns"),
        ("file,label\n0.png,mauve\n", "line 2: label 'mauve'"),
        ("file,label\n", "no labelled pictures"),
    ],
)
def test_bad_csv(pictures: Path, text: str, message: str) -> None:
    table = pictures / "split.csv"
    table.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        indices(table)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(tmp_path: Path, suffix: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = write_idx(tmp_path, "t10k", images, [3, 0, 1, 2, 3], suffix)
    write_idx(tmp_path, "train", images[:2], [1, 1], suffix)
    for data in (tmp_path, path):
        samples = open_dataset(data, LABELS)
        assert [sample.index for sample in samples] == [3, 0, 1, 2, 3]
        np.testing.assert_array_equal(np.stack([sample.image for sample in samples]), images)
    assert indices(tmp_path / f"train-images-idx3-ubyte{suffix}") == [1, 1]


def test_damaged_mnist_files(tmp_path: Path) -> None:
    images = np.zeros((5, 4, 3), np.uint8)
    path = write_idx(tmp_path, "t10k", images, [0] * 4)
    with pytest.raises(InvalidInput, match="5 pictures but 4 labels"):
        open_dataset(path, LABELS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="truncated"):
        open_dataset(path, LABELS)
    path.write_bytes(b"hello")
    with pytest.raises(InvalidInput, match="not an MNIST idx file"):
        open_dataset(path, LABELS)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file or folder"):
        open_dataset(tmp_path / "none", LABELS)
    with pytest.raises(InvalidInput, match="no folder per class"):
        open_dataset(tmp_path, LABELS)
    (tmp_path / "a.zip").touch()
    with pytest.raises(InvalidInput, match="give a folder per class"):
        open_dataset(tmp_path / "a.zip", LABELS)


def test_evaluate_counts_what_predict_says(tiny: Callable[..., Path], pictures: Path, zoo: Callable[..., Any]) -> None:
    path = tiny()
    with runtime.load(path) as model:
        answers = [model.predict(pictures / f"{index}.png").index for index in range(6)]
        wrong = [(answer + 1) % 4 for answer in answers]
        table = pictures / "split.csv"
        table.write_text("".join(f"{i}.png,{label}\n" for i, label in enumerate(answers[:4] + wrong[4:])))
        result = evaluate(model, open_dataset(table, model.labels), batch_size=4)
    assert result.top1 == pytest.approx(100 * 4 / 6)
    assert (result.top5, result.images) == (100, 6)
    done = zoo("eval", path, table, "--json")
    told = json.loads(done.out)
    assert told.keys() >= {"top1", "top5", "images", "images_per_s"}
    assert (done.code, told["top1"], told["images"]) == (0, result.top1, 6)
    assert "top-1 66.67 %" in zoo("eval", path, table).out


def test_a_picture_that_cannot_be_read_stops_the_evaluation(tiny: Callable[..., Path], pictures: Path) -> None:
    (pictures / "1.png").write_bytes(b"torn")
    (pictures / "split.csv").write_text("0.png,red\n1.png,red\n")
    with runtime.load(tiny()) as model, pytest.raises(InvalidImage, match=r"1\.png"):
        evaluate(model, open_dataset(pictures / "split.csv", model.labels))
