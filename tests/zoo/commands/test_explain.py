"""``zoo explain``: what it writes, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.explain import EXPLAINERS
from runtime.model import load

Zoo = Callable[..., Any]
Tiny = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in a folder of its own; the working folder is another, empty one."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = tmp_path / "pictures" / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)).save(path)
    return path


def here() -> list[str]:
    """What lies in the working folder, hidden files included."""
    return sorted(path.name for path in Path().iterdir())


def opened(name: str | Path) -> Image.Image:
    image = Image.open(name)
    image.load()
    return image


def test_an_overlay_is_written_here(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    model = tiny()
    done = zoo("explain", model, photo)
    assert (done.code, done.err) == (0, "")
    assert here() == ["cat_explained.png"]
    with load(model) as opened_model:
        expected = opened_model.explain(photo)
    assert np.array_equal(np.asarray(opened("cat_explained.png")), np.asarray(expected.overlay()))
    assert done.out == f"{photo}: {expected.title} (grad-cam at conv)\nwrote cat_explained.png\n"


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("A.PNG", "PNG")])
def test_the_name_says_the_format(zoo: Zoo, tiny: Tiny, photo: Path, name: str, kind: str) -> None:
    Path(name).write_bytes(b"an older file")
    assert zoo("explain", tiny(), photo, "-o", name).code == 0
    assert opened(name).format == kind
    assert here() == [name]


def test_several_pictures_have_a_file_each_or_a_sheet_together(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    other = photo.with_name("dog.png")
    photo.with_name("more").mkdir()
    same_name = photo.parent / "more" / "cat.png"
    for copy in (other, same_name):
        copy.write_bytes(photo.read_bytes())
    done = zoo("explain", tiny(), photo, other, same_name)
    assert here() == ["cat_explained.png", "cat_explained_2.png", "dog_explained.png"]
    assert done.out.count("wrote") == 3
    done = zoo("explain", tiny(), photo, other, "-o", "both.png")
    assert done.out.endswith("wrote both.png\n")
    assert opened("both.png").width > opened("dog_explained.png").width
    assert zoo("explain", tiny(), photo, other, "-o", photo.parent).code == 0
    assert (photo.parent / "dog_explained.png").is_file()


def test_a_bad_picture_is_reported_and_the_rest_goes_on(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    done = zoo("explain", tiny(), photo, photo.with_name("none.png"), photo.with_name("cat.png"))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "none.png: no such image" in done.err
    assert here() == ["cat_explained.png", "cat_explained_2.png"]


def test_classes_and_methods_side_by_side(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    model = tiny()
    done = zoo("explain", model, photo, "--class", "green", "2", "--method", "grad-cam", "saliency", "--json")
    found = json.loads(done.out)
    assert [(each["label"], each["method"]) for each in found] == [
        ("green", "grad-cam"), ("green", "saliency"), ("blue", "grad-cam"), ("blue", "saliency"),
    ]  # fmt: skip
    assert here() == []  # programs get the data alone
    assert zoo("explain", model, photo, "--top", 2, "--json", "-o", "s.png").code == 0
    (single,) = json.loads(zoo("explain", model, photo, "--json", "-o", "one.png").out)
    assert opened("s.png").width > opened("one.png").width
    predicted = json.loads(zoo("predict", model, photo, "--json").out)[0]["top"]
    top = json.loads(zoo("explain", model, photo, "--top", 2, "--json").out)
    assert [each["index"] for each in top] == [guess["index"] for guess in predicted[:2]]
    assert single["score"] == pytest.approx(predicted[0]["probability"], abs=1e-6)


def test_json_says_where_the_maximum_is(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    (found,) = json.loads(zoo("explain", tiny(), photo, "--json").out)
    assert {"image", "method", "layer", "index", "label", "score", "signed", "notes", "picture"} <= set(found)
    assert found["shape"] == [8, 8]
    array = np.array(found["map"])
    assert (found["min"], found["max"]) == (array.min(), array.max())
    row, column = found["at"]
    assert array[row, column] == array.max()  # 8 x 8 of 8 x 8
    (pixels,) = json.loads(zoo("explain", tiny(), photo, "--method", "saliency", "--json").out)
    assert "map" not in pixels
    assert pixels["layer"] is None


def test_npy_is_the_map_of_one_class(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    model = tiny()
    with load(model) as opened_model:
        expected = opened_model.explain(photo, target="green").map
    assert zoo("explain", model, photo, "--class", "green", "--npy").code == 0
    assert np.array_equal(np.load("cat_explained.npy"), expected)
    assert zoo("explain", model, photo, "--class", "green", "-o", "m.npy").code == 0  # the name says it
    assert np.load("m.npy").dtype == np.float32
    assert zoo("explain", model, photo, "--method", "grad-cam", "--full-size", "-o", "full.npy").code == 0
    assert np.load("full.npy").shape == (8, 8)


def test_lenet_at_both_sizes_and_in_every_way(zoo: Zoo, lenet_file: Path, photo: Path, root: Path) -> None:
    seven = root / "exporters" / "samples" / "digits" / "7.png"
    assert zoo("explain", lenet_file, seven, "-o", "small.npy").code == 0
    assert zoo("explain", lenet_file, seven, "--full-size", "-o", "full.npy").code == 0
    assert np.load("small.npy").shape == (10, 10)
    assert np.load("full.npy").shape == (28, 28)
    done = zoo("explain", lenet_file, seven, "--method", "all", "-o", "all.png", "--html", "all.html", "--json")
    found = [each["method"] for each in json.loads(done.out)]
    assert set(EXPLAINERS) - set(found) == {"cam", "occlusion", "rise"}
    assert done.err.splitlines()[0].startswith("zoo: note: cam is left out: ")
    assert {each["label"] for each in json.loads(done.out)} == {"7"}
    text = Path("all.html").read_text(encoding="utf-8")
    assert text.count('type="range"') == 1
    assert text.count("<option>") == len(found)
    assert here() == ["all.html", "all.png", "full.npy", "small.npy"]


def test_activations_filters_and_attack(zoo: Zoo, lenet_file: Path, photo: Path, root: Path) -> None:
    seven = root / "exporters" / "samples" / "digits" / "7.png"
    done = zoo("explain", lenet_file, seven, "--activations", "--layer", "conv1")
    assert "conv1, 6 x 28 x 28" in done.out
    (told,) = json.loads(zoo("explain", lenet_file, seven, "--activations", "--json", "-o", "a.npy").out)
    array = np.load("a.npy")
    assert (told["layer"], told["shape"], told["max"]) == ("relu2", list(array.shape), array.max())
    done = zoo("explain", lenet_file, "--filters", 0, 5, "--layer", "conv1", "--steps", 3)
    assert "wrote lenet5_filters.png" in done.out
    done = zoo("explain", lenet_file, seven, "--attack", "--class", "3", "--json", "-o", "attack.png")
    (told,) = json.loads(done.out)
    assert told["before"]["label"] == "7"
    assert told["after"]["label"] == "3" if told["fooled"] else told["epsilon"] == 64
    assert here() == ["7_activations.png", "a.npy", "attack.png", "lenet5_filters.png"]
    assert all(opened(name).width >= 128 for name in here() if name.endswith("png"))


def test_a_file_from_elsewhere(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    foreign = tiny(stamped=False)
    done = zoo("explain", foreign, photo)
    assert done.code == 2
    assert "--preprocess" in done.err
    assert zoo("explain", foreign, photo, "--preprocess", "0-1,size=8x8").code == 0
    assert here() == ["cat_explained.png"]


def test_notes_are_said_once(zoo: Zoo, tiny: Tiny, photo: Path, metadata: Any) -> None:
    from dataclasses import replace

    model = tiny(provenance=replace(metadata.provenance, weights="none", weights_file=None))
    done = zoo("explain", model, photo, "--top", 2)
    assert done.err == "zoo: note: untrained weights: the explanation means nothing\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "gren"], "no class 'gren': did you mean 'green'"),
        (["--class", "9"], "no class 9"),
        (["--layer", "conw"], "zoo layers"),
        (["--layer", "nonsense"], "zoo layers"),
        (["--activations", "--layer", "nonsense"], "zoo layers"),
        (["--method", "gradcam"], "did you mean grad-cam"),
        (["--method", "saliency", "--layer", "conv"], "explains the input"),
        (["--method", "cam", "saliency", "--npy"], "one --method and one --class"),
        (["--top", "0"], "--top 0"),
        (["--top", "2", "--class", "red"], "give one of them"),
        (["--filters", "0"], "leave the pictures out"),
        (["--score", "."], "leave other pictures out"),
        (["--limit", "3"], "belong to --score"),
        (["--full-size"], "add --npy or --json"),
        (["--epsilon", "3"], "--attack"),
        (["--attack", "--epsilon", "-3"], "epsilon"),
        (["--attack", "--steps", "0"], "--steps 0"),
        (["--attack", "--class", "red", "blue"], "aims at one class"),
        (["--attack", "--layer", "conv"], "leave --layer out"),
        (["--attack", "--html", "a.html"], "no page"),
        (["--activations", "--method", "cam"], "--method does not go with"),
        (["-o", "a.nonsense"], "ending in .png"),
        (["-o", "nowhere/a.png"], "nowhere: no such folder"),
        (["--html", "a.txt"], "ending in .html"),
        (["--html", "nowhere/a.html"], "nowhere: no such folder"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(zoo: Zoo, tiny: Tiny, photo: Path, options: list[str], message: str) -> None:
    done = zoo("explain", tiny(), photo, *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("zoo: error: ")
    assert done.err.count("\n") == 1
    assert here() == []


def test_pictures_come_first(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    assert "the pictures come first" in zoo("explain", tiny(), "--method", "grad-cam", photo).err
    assert "at least one picture" in zoo("explain", tiny()).err
    assert "--score measures methods" in zoo("explain", tiny(), "--score", photo.parent, "--top", 2).err


def test_methods_are_scored_on_a_folder(zoo: Zoo, tiny: Tiny, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("zoo.explain_score.run_score", lambda args, model: asked.append((args, model)) or 0)
    assert zoo("explain", tiny(), "--score", photo.parent, "--method", "grad-cam").code == 0
    ((args, model),) = asked
    assert (args.score, args.method, model.metadata.name) == (photo.parent, ["grad-cam"], "tiny")


def test_the_picture_itself_is_never_written_over(zoo: Zoo, tiny: Tiny, photo: Path) -> None:
    before = photo.read_bytes()
    done = zoo("explain", tiny(), photo, "-o", photo)
    assert done.code == 2
    assert "is the picture that is explained" in done.err
    assert photo.read_bytes() == before


def test_nothing_half_written(zoo: Zoo, tiny: Tiny, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = tiny()
    Path("a.png").write_text("older")
    monkeypatch.setattr(Path, "write_bytes", full)
    done = zoo("explain", model, photo, "-o", "a.png")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert here() == ["a.png"]
    assert Path("a.png").read_text() == "older"


def test_a_constant_picture_and_stdin(zoo: Zoo, tiny: Tiny, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys
    from types import SimpleNamespace

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    done = zoo("explain", tiny(), "-", "--method", "grad-cam", "saliency")
    assert done.code == 0, done.err
    assert here() == ["stdin_explained.png"]
    Image.new("RGB", (8, 8), (128, 128, 128)).save(photo)
    assert zoo("explain", tiny(), photo).code == 0
