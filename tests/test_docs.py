"""The documents cannot drift: every command and every snippet in them is run, in order, in an empty folder."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

INSTALL, UV_RUN = "python3 -m pip install -q uv", "python3 -m uv run "
# What keeps an example short here without changing what it does.
SHORTER = {
    "exporters.architectures.train_lenet5": " --epochs 1",
    "benchmarks/overhead.py": " --rounds 20",
    "benchmarks/catalogue.py": " lenet5 --again",
    "benchmarks/int8.py --data": " lenet5 --limit 200",
    "benchmarks/gradients.py": " squeezenet1_1 --budget 1",
    "benchmarks/file_to_label.py": " --budget 0.1 --road edgezoo",
    "benchmarks/first_answer.py": " --rounds 1 --road edgezoo",
    "benchmarks/throughput.py": " --limit 20 --rounds 1",
    "benchmarks/soak.py": " --count 1500",
    "benchmarks/peers.py --threads": " squeezenet1_1 --peer openvino --budget 0.2 --tuning 1 --launches 1",
}
# The same for commands of ours: the whole command, and what is added to it.
SHORTER_COMMANDS = {
    "zoo bench": ["lenet5", "--budget", "0.5", "--rounds", "2"],
    "zoo bench lenet5 mobilenet_v2.onnx --precision fp32 int8 --batch 1 2 --budget 1 -o before.json --html bench.html "
    "--png charts": ["--budget", "0.3", "--rounds", "2"],
    "zoo bench lenet5 --data mnist/ --budget 1 -o measured.json": ["--budget", "0.3", "--rounds", "2"],
}


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """Every command of a document's bash blocks, without the part that sets uv up."""
    parts = [part.strip() for block in blocks(text, "bash") for line in block.splitlines() for part in line.split("&&")]
    return [part.removeprefix(UV_RUN) for part in parts if part and part != INSTALL]


@pytest.fixture
def folder(tmp_path: Path, root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader has it: the sample pictures, the benchmarks, MNIST, published weights already fetched."""
    shutil.copytree(root / "exporters" / "samples", tmp_path / "exporters" / "samples")
    shutil.copytree(root / "benchmarks", tmp_path / "benchmarks")
    real = root.parent / "shared" / "data" / "mnist"
    if real.is_dir():
        (tmp_path / "mnist").symlink_to(real)
    else:
        _write_mnist(tmp_path / "mnist", root / "exporters" / "samples" / "digits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PYTHONPATH", str(root))
    return tmp_path


def _write_mnist(folder: Path, digits: Path) -> None:
    """The ten sample digits, 64 times over, in MNIST's format."""
    folder.mkdir()
    pictures = [np.asarray(Image.open(digits / f"{digit}.png").convert("L").resize((28, 28))) for digit in range(10)]
    for stem in ("train", "t10k"):
        images = struct.pack(">4I", 2051, 640, 28, 28) + np.stack(pictures * 64).tobytes()
        answers = struct.pack(">2I", 2049, 640) + bytes(range(10)) * 64
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(answers))


def _publish_mobilenet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights as published ones that torch.hub has in its cache: there is no network in a test."""
    import torch
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    cache = folder / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(mobilenet_v2(weights=None).state_dict(), cache / "new.pth")
    digest = hashlib.sha256((cache / "new.pth").read_bytes()).hexdigest()
    published = (cache / "new.pth").rename(cache / f"mobilenet_v2-{digest[:8]}.pth")
    weights = MobileNet_V2_Weights.IMAGENET1K_V1
    url = f"{weights.url.rpartition('/')[0]}/{published.name}"
    monkeypatch.setattr(weights, "_value_", dataclasses.replace(weights.value, url=url))


@pytest.mark.slow
def test_readme(root: Path, folder: Path, zoo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    _publish_mobilenet(folder, monkeypatch)
    answers = {}
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):  # in the reader's order
        if language == "python":
            exec(compile(block, "README.md", "exec"), {})
        for command in commands(f"```bash\n{block}```") if language == "bash" else []:
            answers[command] = _run(command, zoo)
    assert "verified against torch" in answers["zoo export lenet5"]
    assert "│ 7 " in answers["zoo predict lenet5.onnx exporters/samples/digits/7.png"]
    assert "untrained weights" in answers["zoo export mobilenet --weights none -o untrained.onnx"]
    if (folder / "mnist").is_symlink():
        stated = re.search(r"\*\*([\d.]+) % top-1\*\*", text)
        measured = re.search(r"top-1 ([\d.]+) %", answers["zoo eval lenet5.onnx mnist/"])
        assert stated is not None
        assert measured is not None
        assert stated[1] == measured[1]
        assert float(measured[1]) >= 99.0


@pytest.mark.slow
@pytest.mark.parametrize("document", ["benchmarks/README.md"])
def test_other_documents(root: Path, folder: Path, zoo: Callable[..., Any], document: str) -> None:
    for command in commands((root / document).read_text(encoding="utf-8")):
        _run(command, zoo)


def _run(command: str, zoo: Callable[..., Any]) -> str:
    """What the command prints; it must succeed."""
    program, *rest = command.split()
    if program == "pytest":  # this very process
        return ""
    if program == "zoo":
        done = zoo(*rest, *SHORTER_COMMANDS.get(command, []))
        # A comparison that finds a row slower has done what it should.
        assert done.code == 0 or (done.code == 1 and "--compare" in rest and not done.err), done.err
        return str(done.out)
    assert program == "python", command
    longer = next((extra for name, extra in SHORTER.items() if name in command), "")
    argv = [sys.executable, *rest, *longer.split()]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_readme_leads_with_the_two_commands(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    first, second = blocks(text, "bash")[:2]
    assert first.startswith(f"{INSTALL} && {UV_RUN}zoo export lenet5")
    assert second == f"{INSTALL} && {UV_RUN}pytest\n"
    assert text.index(second) < 1500
    assert second in (root / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_names_every_command_and_metadata_key(root: Path) -> None:
    from runtime.metadata import Metadata
    from zoo.cli import COMMANDS

    text = (root / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"zoo {name}" not in text] == []
    missing = [name for name in Metadata.__dataclass_fields__ if f"edgezoo.{name}" not in text]
    assert missing == []


def test_the_row_in_contributing_is_a_row(root: Path) -> None:
    import timm

    from exporters.libraries import describe
    from zoo import models, spec

    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (snippet,) = blocks(text, "python")
    row = eval(snippet.strip().removesuffix(","), {**vars(models), **vars(spec)})
    variant = row.sources["torch"]
    network = timm.create_model(variant.builder.partition(":")[2], pretrained=False)
    assert sum(weights.numel() for weights in network.parameters()) == variant.facts.trainable
    told = describe(variant.builder)
    assert (told.preprocess, told.hub) == (variant.preprocess, variant.hub)
    assert row.name not in {spec.name for spec in models.MODELS}, "in the catalogue now: show another row"


def test_links_lead_somewhere(root: Path) -> None:
    for document in root.glob("*.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (root / target).exists(), f"{document.name}: {target}"
