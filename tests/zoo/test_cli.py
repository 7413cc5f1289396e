"""The commands as people use them: what they print, where, and the exit code."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.errors import EdgeZooError, InternalError, UserError
from zoo import cli
from zoo.models import MODELS

Zoo = Callable[..., Any]


def test_every_command_is_there_and_explains_itself(zoo: Zoo, root: Path) -> None:
    modules = {f"zoo.commands.{path.stem}" for path in (root / "zoo" / "commands").glob("[!_]*.py")}
    assert modules == {cli.module_of(command) for command in cli.COMMANDS}
    for command in cli.COMMANDS:
        done = zoo(command, "--help")
        assert done.code == 0
        assert "usage: zoo" in done.out


def test_every_option_has_help() -> None:
    parser = cli.build_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    silent = [
        f"{name} {action.dest}"
        for name, command in commands.choices.items()
        for action in command._actions
        if not action.help
    ]
    assert silent == []


def test_list(zoo: Zoo) -> None:
    rows = json.loads(zoo("list", "--json").out)
    assert [row["name"] for row in rows] == [spec.name for spec in MODELS]
    by_name = {row["name"]: row for row in rows}
    (torch, keras) = by_name["mobilenet_v2"]["sources"]
    # docs.pytorch.org and keras.io: 71.878 and 71.3 %, 3,504,872 and 3,538,984 parameters
    assert (torch["source"], torch["trainable"], torch["published"]["top1"]) == ("torch", 3_504_872, 71.878)
    assert (keras["source"], keras["parameters"], keras["published"]["top1"]) == ("keras", 3_538_984, 71.3)
    table = zoo("list").out
    assert all(spec.name in table for spec in MODELS)


def test_show_a_row_and_a_file(zoo: Zoo, tiny: Callable[..., Path]) -> None:
    row = json.loads(zoo("show", "mobilenet", "--json").out)
    assert row["name"] == "mobilenet_v2"
    assert row["sources"][0]["preprocess"]["resize"] == 256
    path = tiny()
    told = json.loads(zoo("show", path, "--json").out)
    assert (told["name"], told["labels"]["names"][0]) == ("tiny", "red")
    assert "tiny.bin" in zoo("show", path).out


@pytest.mark.parametrize("name", ["mobilnet_v2", "MobileNet_V3", "resnet5", "lenet_6"])
def test_unknown_name_gets_the_nearest(zoo: Zoo, name: str) -> None:
    done = zoo("show", name) if name != "MobileNet_V3" else zoo("show", "mobilenet_v4")
    assert done.code == 2
    assert "did you mean" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("MobileNet", "mobilenet_v2"),
        ("ResNet-50", "resnet50"),
        ("resnet_50", "resnet50"),
        ("EfficientNetV2B0", "efficientnet_v2_b0"),
        ("regnet-x-1.6gf", "regnet_x_1_6gf"),
        ("RegNetX16GF", "regnet_x_16gf"),
        ("SqueezeNet1.1", "squeezenet1_1"),
        ("Inception-v1", "googlenet"),
    ],
)
def test_a_name_is_known_however_it_is_spelt(zoo: Zoo, spelt: str, name: str) -> None:
    assert json.loads(zoo("show", spelt, "--json").out)["name"] == name


def test_show_gives_the_reason_where_published_figures_differ(zoo: Zoo) -> None:
    table = zoo("show", "inception_v3").out
    assert "auxiliary" in table
    assert "23,834,568 counted, 27,161,264 published" in table
    assert "55.9" in zoo("show", "inception_v4").out


def test_predict(zoo: Zoo, tiny: Callable[..., Path], tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.zeros((12, 9, 3), np.uint8)).save(picture)
    (answer,) = json.loads(zoo("predict", tiny(), picture, "--top", 2, "--json").out)
    assert answer["image"] == str(picture)
    assert len(answer["top"]) == 2
    assert answer["top"][0]["probability"] >= answer["top"][1]["probability"]
    text = zoo("predict", tiny(), picture, picture).out
    assert text.count(answer["top"][0]["label"]) >= 2


def test_predict_reports_a_bad_picture_and_goes_on(zoo: Zoo, tiny: Callable[..., Path], tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (9, 9)).save(picture)
    done = zoo("predict", tiny(), picture, tmp_path / "none.png", picture, "--json")
    assert done.code == 2
    assert len(json.loads(done.out)) == 2
    assert "none.png: no such image" in done.err


def test_export_says_what_it_verified(zoo: Zoo, tmp_path: Path, lenet_file: Path) -> None:
    output = tmp_path / "five.onnx"
    done = zoo("export", "lenet", "-o", output, "--json")
    assert done.code == 0
    assert done.err == ""
    told = json.loads(done.out)
    assert told["path"] == str(output)
    assert told["bytes"] == output.stat().st_size
    assert told["metadata"]["parity"]["max_relative_error"] <= 1e-4
    assert told["metadata"]["provenance"]["weights"] == "bundled"
    assert told["metadata"]["provenance"]["license"] == "Apache-2.0"
    assert output.read_bytes() == lenet_file.read_bytes()


@pytest.mark.parametrize("kind", ["file", "none"])
def test_export_claims_no_licence_for_other_weights(zoo: Zoo, tmp_path: Path, root: Path, kind: str) -> None:
    weights = root / "zoo" / "bundled" / "lenet5.safetensors" if kind == "file" else "none"
    done = zoo("export", "lenet5", "--weights", weights, "-o", tmp_path / "a.onnx", "--json")
    provenance = json.loads(done.out)["metadata"]["provenance"]
    assert (provenance["weights"], provenance["license"]) == (kind, None)


def test_export_marks_untrained_weights(zoo: Zoo, tmp_path: Path, root: Path) -> None:
    output = tmp_path / "random.onnx"
    done = zoo("export", "lenet5", "--weights", "none", "--seed", 7, "--batch", 2, "-o", output)
    assert "untrained weights" in done.out
    assert json.loads(zoo("show", output, "--json").out)["provenance"]["seed"] == 7
    digit = root / "exporters" / "samples" / "digits" / "7.png"
    assert "untrained weights" in zoo("predict", output, digit).out
    assert json.loads(zoo("predict", output, digit, "--json").out)[0]["trained"] is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["export", "lenet5", "--opset", "5"], "opset 5 is not supported: choose 13 to 23"),
        (["export", "lenet5", "--batch", "0"], "--batch '0': give a number of at least 1"),
        (["export", "lenet5", "--batch", "many"], "--batch 'many'"),
        (["export", "lenet5", "--input-size", "28"], "--input-size '28': give HEIGHTxWIDTH"),
        (["export", "squeezenet1_1", "--source", "keras"], "squeezenet1_1 has no keras source: it has torch"),
        (["export", "lenet5", "--weights", "imagenet"], "lenet5 has no ImageNet weights"),
        (["export", "resnet50", "--weights", "bundled"], "resnet50 has no bundled weights"),
        (["export", "resnet50", "--weights", "none.pth"], "none.pth: no such weights file"),
        (["export", "resnet50", "--weights", "none", "-o", "nowhere/a.onnx"], "nowhere: no such folder"),
        (["export", "nonsense"], "no model 'nonsense' in the zoo"),
        (["predict", "none.onnx", "a.jpg"], "none.onnx"),
        (["eval", "none.onnx", "data"], "none.onnx"),
        (["show", "none.onnx"], "none.onnx"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = zoo(*argv)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("zoo: error: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("yours"), 2),
        (InternalError("ours"), 1),
        (PermissionError(13, "Permission denied", "secret.csv"), 2),
        (ZeroDivisionError("a bug\nof two lines"), 1),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 2),
    ],
)
def test_errors_become_one_line(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr("zoo.commands.list.run", fail)
    done = zoo("list")
    assert done.code == code
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    if isinstance(error, Exception):
        assert "Traceback" in zoo("list", "-v").err


def test_an_interrupted_import_is_an_interrupt(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        # What compiled modules make of Ctrl-C while they are being imported: ImportError("initialization failed").
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as interrupt:
                raise ImportError("initialization failed") from interrupt
        except ImportError as error:
            raise UserError("onnxruntime does not load") from error

    monkeypatch.setattr("zoo.commands.list.run", fail)
    done = zoo("list")
    assert (done.code, done.err) == (130, "zoo: interrupted; nothing half-written was kept\n")


def test_every_error_knows_its_exit_code() -> None:
    def leaves(kind: type[EdgeZooError]) -> list[type[EdgeZooError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]

    for kind in leaves(UserError):
        assert kind.exit_code == 2
    for kind in leaves(InternalError):
        assert kind.exit_code == 1
    for kind in {*leaves(UserError), *leaves(InternalError)} - {UserError, InternalError}:
        assert issubclass(kind, (OSError, ValueError, LookupError, RuntimeError, ImportError)), kind


def test_python_m_zoo_and_a_closed_pipe() -> None:
    command = f"{sys.executable} -m zoo list --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[", "")
