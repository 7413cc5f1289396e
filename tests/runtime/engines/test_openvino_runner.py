"""OpenVINO against onnxruntime on the same files, and its refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.engines import open_runner
from runtime.engines.openvino_runner import load_openvino
from runtime.errors import ArtifactNotFound, DeviceUnavailable, InvalidArtifact, InvalidInput, MissingDependency
from runtime.model import Model

pytest.importorskip("openvino")

RANDOM = np.random.default_rng(0)


def batch(count: int = 1) -> np.ndarray:
    return RANDOM.standard_normal((count, 3, 8, 8)).astype(np.float32)


def has_bf16() -> bool:
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_the_same_scores_for_any_number_of_pictures(tiny: Callable[..., Path]) -> None:
    path = tiny()
    with Model(path) as reference, Model(path, engine="openvino") as model:
        assert (model.engine, model.device, model.provider) == ("openvino", "cpu", "OpenVINO CPU")
        for count in (1, 2, 3, 4, 5, 6, 1):
            pictures = batch(count)
            np.testing.assert_allclose(model.run(pictures), reference.run(pictures), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            model.run_all(pictures)["logits"], reference.run_all(pictures)["logits"], rtol=1e-5, atol=1e-5
        )


def test_a_file_of_one_batch_size(tiny: Callable[..., Path]) -> None:
    path, pictures = tiny(batch=2), batch(2)
    with Model(path) as reference, Model(path, engine="openvino") as model:
        assert model.batch_size == reference.batch_size == 2
        np.testing.assert_allclose(model.run(pictures), reference.run(pictures), rtol=1e-5, atol=1e-5)
        with pytest.raises(InvalidInput, match="takes float32"):
            model.run(batch(3))


def test_pictures_and_labels_come_from_the_file(tiny: Callable[..., Path]) -> None:
    picture = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tiny()
    with Model(path) as reference, Model(path, engine="openvino") as model:
        assert model.metadata == reference.metadata
        assert model.predict(picture).label == reference.predict(picture).label
        np.testing.assert_array_equal(
            model.explain(picture, "grad-cam").map, reference.explain(picture, "grad-cam").map
        )


def test_answers_are_the_callers_to_keep(tiny: Callable[..., Path]) -> None:
    with Model(tiny(), engine="openvino") as model:
        first = model.run(batch())
        kept = first.copy()
        model.run(batch())
        np.testing.assert_array_equal(first, kept)


def test_many_threads_share_one_model(tiny: Callable[..., Path]) -> None:
    path = tiny()
    pictures = [batch(1 + index % 3) for index in range(8)]
    wrong: list[int] = []
    with Model(path) as reference, Model(path, engine="openvino") as model:
        expected = [reference.run(one) for one in pictures]

        def work(index: int) -> None:
            for _ in range(50):
                if not np.allclose(model.run(pictures[index]), expected[index], rtol=1e-4, atol=1e-4):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_arrays_of_any_layout_in_memory(tiny: Callable[..., Path]) -> None:
    pictures = batch(2)
    frozen = pictures.copy()
    frozen.flags.writeable = False
    odd = [np.asfortranarray(pictures), frozen, np.repeat(pictures, 2, axis=3)[..., ::2], pictures[::-1][::-1]]
    with Model(tiny(), engine="openvino") as model:
        expected = model.run(pictures)
        for one in odd:
            np.testing.assert_allclose(model.run(one), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "given", [np.zeros((1, 3, 8, 8)), np.zeros((1, 3, 9, 8), np.float32), np.zeros((3, 8, 8), np.float32), [1, 2]]
)
def test_what_does_not_fit_is_not_converted(tiny: Callable[..., Path], given: object) -> None:
    with Model(tiny(), engine="openvino") as model, pytest.raises(InvalidInput, match="takes float32"):
        model.run(given)  # type: ignore[arg-type]


def test_precision_is_what_was_asked_for(tiny: Callable[..., Path]) -> None:
    path, pictures = tiny(), batch()
    with Model(path) as reference, Model(path, engine="openvino") as full:
        exact = reference.run(pictures)
        assert np.abs(full.run(pictures) - exact).max() < 1e-5 * np.abs(exact).max()
        if not has_bf16():
            with pytest.raises(DeviceUnavailable, match="bf16"):
                Model(path, engine="openvino", precision="bf16")
            return
        with Model(path, engine="openvino", precision="bf16") as less:
            error = np.abs(less.run(pictures) - exact).max() / np.abs(exact).max()
            assert 1e-5 < error < 5e-2, "eight bits of mantissa"


def test_what_it_prepared_opens_and_answers_the_same(tiny: Callable[..., Path]) -> None:
    pictures = batch()
    for engine in ("onnxruntime", "openvino"):
        plain = open_runner(tiny(), engine=engine)
        ready = open_runner(tiny(), engine=engine, prepared=plain.prepared())
        assert (ready.inputs, ready.outputs, dict(ready.props)) == (plain.inputs, plain.outputs, dict(plain.props))
        for one in (pictures, batch(2)):
            found = [runner.run(["logits"], {"input": one})[0] for runner in (plain, ready)]
            np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)


def test_bad_files_are_refused(tmp_path: Path, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactNotFound):
        Model(tmp_path / "none.onnx", engine="openvino")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidArtifact):
        Model(tmp_path / "text.onnx", engine="openvino")
    proto = onnx.load(tiny())
    proto.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "odd.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidArtifact) as caught:
        Model(tmp_path / "odd.onnx", engine="openvino")
    assert "OpenVINO" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_package_says_what_to_install(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    load_openvino.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    try:
        with pytest.raises(MissingDependency, match=r"edgezoo\[openvino\]"):
            Model(tiny(), engine="openvino")
    finally:
        load_openvino.cache_clear()


def test_nothing_is_sent_home() -> None:
    # OpenVINO's converter reports every import of it; the engine needs none of it.
    code = (
        "import sys; from runtime.engines.openvino_runner import load_openvino; load_openvino(); "
        "print([name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
