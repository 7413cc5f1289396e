"""What gets installed: three packages and their data, nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_wheel_holds_three_packages(wheel: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"zoo", "exporters", "runtime"}


@pytest.mark.parametrize(
    "data",
    [
        "zoo/bundled/lenet5.safetensors",
        "zoo/labelsets/imagenet.txt",
        "zoo/tables/keras_applications.csv",
        "zoo/tables/torchvision_weights.csv",
        "exporters/samples/photos/cat.jpg",
        "exporters/samples/digits/7.png",
        "runtime/py.typed",
        "zoo/py.typed",
        "exporters/py.typed",
    ],
)
def test_wheel_holds_the_data(wheel: list[str], data: str) -> None:
    assert data in wheel


def test_constraints_pin_every_direct_dependency_within_bounds(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["dependency-groups"]["dev"],
    ]
    pins = dict(
        line.lower().split("==")
        for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    for requirement in map(Requirement, lines):
        if requirement.name == "onnxruntime":  # the other wheel of onnxruntime-gpu, which is the one pinned
            continue
        assert requirement.specifier, f"{requirement} has no bound"
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_no_host_and_no_path_of_a_machine_is_committed(root: Path) -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [root / name for name in done.stdout.split("\0") if name]
    assert not [path for path in files if path.name in ("uv.lock", "poetry.lock", "pylock.toml")]
    bad = re.compile(rb"pypi\.(?:org)|python(?:hosted)|registry\.(?:npmjs)|/(?:root|work)/")
    for path in files:
        if path.is_file() and path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".cfg", ""):
            assert not bad.search(path.read_bytes()), path


def test_modules_stay_readable(root: Path) -> None:
    long = {
        str(path.relative_to(root)): lines
        for package in ("zoo", "exporters", "runtime")
        for path in Path(root, package).rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 300 and path.name != "models.py"  # a table
    }
    assert long == {}
