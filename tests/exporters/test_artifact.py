from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters import artifact
from runtime.errors import OutputNotWritable
from runtime.metadata import Metadata


def test_appears_only_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "a.onnx"
    with artifact.staged(output) as draft:
        draft.write_bytes(b"whole")
        assert not output.exists()
        assert draft.parent.parent == tmp_path  # the same file system, so that the rename is atomic
    assert output.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, MemoryError])
def test_nothing_is_left_behind(tmp_path: Path, failure: type[BaseException]) -> None:
    output = tmp_path / "a.onnx"
    output.write_bytes(b"older")
    with pytest.raises(failure), artifact.staged(output) as draft:
        draft.write_bytes(b"half")
        raise failure
    assert output.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [output]


def test_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritable, match="No space left on device"), artifact.staged(tmp_path / "a.onnx"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_other_os_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), artifact.staged(tmp_path / "a.onnx"):
        raise ConnectionResetError(errno.ECONNRESET, "not about the disk")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/a.onnx", "no such folder"),
        ("a.txt", "must end in .onnx"),
        ("", "is a folder"),
        ("file/a.onnx", "no such folder"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputNotWritable, match=message), artifact.staged(tmp_path / name):
        pytest.fail("no work may begin")


def test_read_only_folder() -> None:
    proc = Path("/proc")  # a folder that not even root can write to
    if not proc.is_dir():
        pytest.skip("needs Linux")
    with pytest.raises(OutputNotWritable, match="cannot be written"), artifact.staged(proc / "a.onnx"):
        pytest.fail("no work may begin")


def test_external_data_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: onnx.ModelProto, metadata: Metadata
) -> None:
    artifact.stamp(tiny_model, metadata)
    whole = tmp_path / "whole" / "m.onnx"
    whole.parent.mkdir()
    with artifact.staged(whole) as draft:
        artifact.write(tiny_model, draft)
    monkeypatch.setattr(artifact, "EXTERNAL_DATA_ABOVE", 100)
    monkeypatch.setattr(artifact, "_INLINE_BELOW", 16)
    split = tmp_path / "split" / "m.onnx"
    split.parent.mkdir()
    with artifact.staged(split) as draft:
        artifact.write(tiny_model, draft)
    assert sorted(path.name for path in split.parent.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert sorted(path.name for path in whole.parent.iterdir()) == ["m.onnx"]
    picture = {"input": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    answers = [onnxruntime.InferenceSession(path).run(None, picture)[0] for path in (whole, split)]
    np.testing.assert_array_equal(*answers)


def test_same_model_same_bytes(tmp_path: Path, tiny_model: onnx.ModelProto, metadata: Metadata) -> None:
    digests = set()
    for name in ("a.onnx", "b.onnx"):
        artifact.stamp(tiny_model, metadata)
        artifact.write(tiny_model, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_stamp_replaces(tiny_model: onnx.ModelProto, metadata: Metadata) -> None:
    tiny_model.metadata_props.add(key="edgezoo.schema", value="0")
    artifact.stamp(tiny_model, metadata)
    props = {entry.key: entry.value for entry in tiny_model.metadata_props}
    assert len(props) == len(tiny_model.metadata_props)
    assert Metadata.from_props(props) == metadata
