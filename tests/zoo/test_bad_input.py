"""Whatever people feed it: one clear line, the right exit code, nothing half-written, nothing executed."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Zoo = Callable[..., Any]
Tiny = Callable[..., Path]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def noise_jpeg() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def refused(done: Any, code: int = 2) -> str:
    """Checks the form of a refusal and gives its line."""
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.startswith("zoo: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    return str(done.err)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("half.jpg", lambda: noise_jpeg()[: len(noise_jpeg()) // 2], "half.jpg"),
        ("empty.png", lambda: b"", "empty"),
        ("text.jpg", lambda: b"this is not a picture", "not an image"),
        ("zero.png", lambda: png_header(0, 0), "zero.png"),
        ("huge.png", lambda: png_header(50_000, 50_000), "2500000000 pixels"),
    ],
)
def test_pictures(zoo: Zoo, tiny: Tiny, tmp_path: Path, name: str, make: Callable[[], bytes], message: str) -> None:
    picture = tmp_path / name
    picture.write_bytes(make())
    assert message in refused(zoo("predict", tiny(), picture))


def test_folder_and_missing_picture(zoo: Zoo, tiny: Tiny, tmp_path: Path) -> None:
    assert "no pictures in this folder" in refused(zoo("predict", tiny(), tmp_path))
    assert "no such image" in refused(zoo("predict", tiny(), tmp_path / "none.jpg"))


@pytest.mark.parametrize("command", ["predict", "eval", "show"])
def test_models(zoo: Zoo, tiny: Tiny, tmp_path: Path, command: str) -> None:
    whole = tiny().read_bytes()
    cases = {
        "empty.onnx": b"",
        "text.onnx": b"hello, I am a text file\n" * 40,
        "random.onnx": np.random.default_rng(0).bytes(4000),
        "third.onnx": whole[: len(whole) // 3],
        "all_but_one.onnx": whole[:-1],
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        argv = [command, path] if command == "show" else [command, path, tmp_path]
        assert name in refused(zoo(*argv))
    argv = [tmp_path] if command == "show" else [tmp_path, tmp_path]
    refused(zoo(command, *argv))


def test_model_of_another_schema(zoo: Zoo, tiny: Tiny, tmp_path: Path) -> None:
    line = refused(zoo("predict", tiny(props={"edgezoo.schema": "1"}), tmp_path))
    assert "schema '1'" in line
    assert "reads schema 2" in line


def test_absent_device(zoo: Zoo, tiny: Tiny, tmp_path: Path) -> None:
    assert "unknown device 'npu'" in refused(zoo("predict", tiny(), tmp_path, "--device", "npu"))


def test_label_file_of_the_wrong_length(zoo: Zoo, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    line = refused(zoo("export", "lenet5", "--source", "torch", "--labels", names, "-o", tmp_path / "a.onnx"))
    assert "names.txt: 2 labels, but the bundled weights of lenet5 have 10 classes" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.txt"]


class Bomb:
    """What an attacker puts into a checkpoint."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


def test_pickle_that_would_run_code(zoo: Zoo, tmp_path: Path) -> None:
    marker, weights = tmp_path / "executed", tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps({"conv1.weight": Bomb(marker)}))
    line = refused(zoo("export", "lenet5", "--weights", weights, "-o", tmp_path / "a.onnx"))
    assert "weights.pth" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


def test_read_only_output_folder(zoo: Zoo) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs Linux: /proc refuses even root")
    assert "cannot be written" in refused(zoo("export", "lenet5", "-o", "/proc/a.onnx"))


def test_full_disk(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    line = refused(zoo("export", "lenet5", "--source", "torch", "-o", tmp_path / "a.onnx"))
    assert "No space left on device" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_in_the_middle_of_an_export(tmp_path: Path) -> None:
    output = tmp_path / "squeezenet1_1.onnx"
    argv = ["export", "squeezenet1_1", "--source", "torch", "--weights", "none", "-o", str(output)]
    command = [sys.executable, "-m", "zoo", *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".squeezenet1_1.*/*.onnx")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)  # until the draft is being verified
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "zoo: interrupted; nothing half-written was kept\n"
    assert list(tmp_path.iterdir()) == []
