"""Every rule, over generated shapes: against finite differences and against torch in float64, and in onnxruntime."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import helper

from runtime.gradients import ByWeights, add_gradients
from runtime.gradients.rules import NON_DIFFERENTIABLE, RULES
from tests.runtime.gradients.case import SEED_EXTENTS, Case
from tests.runtime.gradients.cases import CASES
from tests.runtime.gradients.running import run64, session

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
EXAMPLES = 3

# float64 through ONNX's reference, which computes some coefficients in float32 (2e-8 each): 1e-6 of the largest value.
EXACT = 1e-6
# Central differences of step 1e-6 in float64: rounding 1e-10 / 1e-6, curvature 1e-12.
DIFFERENCE, STEP = 1e-6, 1e-6
# float32 in onnxruntime: sums of some hundred products.
SINGLE = 2e-5


def test_every_rule_has_a_case() -> None:
    tested_elsewhere = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"}
    integer = {name for name in RULES if name.startswith(("QLinear", "QGemm"))}
    assert set(RULES) - integer - tested_elsewhere == {case.op for case in CASES}
    assert not set(RULES) & set(NON_DIFFERENTIABLE)
    assert all(reason and reason[0].islower() for reason in NON_DIFFERENTIABLE.values())


def arrays(case: Case, extents: dict[str, int]) -> list[Array | None]:
    """Seeded values for the inputs; None for one that is left out."""
    random, made = np.random.default_rng(zlib.crc32(case.id.encode())), list[Array | None]()
    for entry in case.inputs:
        if isinstance(entry, str) and entry:
            shape = [int(letter) if letter.isdigit() else extents[letter] for letter in entry.split()]
            made.append(random.uniform(0.2, 2, shape) if case.positive else random.normal(size=shape) * case.scale)
        else:
            made.append(entry if isinstance(entry, np.ndarray) else None)
    return made


def build(case: Case, inputs: list[Array | None], kind: int) -> onnx.ModelProto:
    """The operator alone; what is not differentiated is a weight."""
    names = [f"x{index}" if array is not None else "" for index, array in enumerate(inputs)]
    outputs = [f"y{index}" for index in range(case.outputs)]
    attributes = {key.rstrip("_"): value for key, value in case.attributes.items()}
    attributes |= {name: kind for name in ("to", "stash_type") if name in attributes}
    node = helper.make_node(case.op, names, outputs, domain=case.domain, **attributes)
    real = helper.tensor_dtype_to_np_dtype(kind)
    values = {}
    for name, array in zip(names, inputs, strict=True):
        if array is not None:
            # Scales of a Resize are float32 in every model, values of any other operator follow its type.
            fixed = array.dtype == np.float32 or not np.issubdtype(array.dtype, np.floating)
            values[name] = array if fixed else array.astype(real)
    given = [helper.make_tensor_value_info(names[i], kind, list(values[names[i]].shape)) for i in case.wrt]
    weights = [onnx.numpy_helper.from_array(values[n], n) for i, n in enumerate(names) if n and i not in case.wrt]
    graph = helper.make_graph([node], "case", given, [helper.make_tensor_value_info(outputs[-1], kind, None)], weights)
    domains = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_rule(case: Case) -> None:
    letters = sorted({letter for entry in case.inputs if isinstance(entry, str) for letter in entry.split()} - {""})
    drawn = st.fixed_dictionaries({name: st.integers(*SEED_EXTENTS[name]) for name in letters if name in SEED_EXTENTS})

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn)
    def check(extents: dict[str, int]) -> None:
        compare(case, arrays(case, extents))

    check()


def compare(case: Case, inputs: list[Array | None]) -> None:
    names = [f"x{index}" for index in case.wrt]
    tensors = [None if array is None else torch.from_numpy(np.array(array)) for array in inputs]
    for index in case.wrt:
        tensors[index] = tensors[index].double().requires_grad_()  # type: ignore[union-attr]
    y = case.oracle(*(tensor for tensor in tensors if tensor is not None))
    weights = np.random.default_rng(1).normal(size=tuple(y.shape))
    y.backward(torch.from_numpy(weights))
    expected = [tensors[index].grad.numpy() for index in case.wrt]  # type: ignore[union-attr]

    feeds = {name: inputs[index] for name, index in zip(names, case.wrt, strict=True)}
    reference = case.domain or case.op in ("Affine", "Crop", "ImageScaler", "Upsample")
    if not reference:
        model = build(case, inputs, 11)
        whole = add_gradients(model, names, seed=ByWeights(), plain=False)
        found = run64(whole, {**feeds, "seed": weights}, native=case.native)
        for name, ours, theirs in zip(names, found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=EXACT * max(np.abs(theirs).max(), 1), err_msg=name)
        along = {name: np.random.default_rng(2).normal(size=array.shape) for name, array in feeds.items()}
        ends = [
            run64(model, {name: feeds[name] + sign * STEP * along[name] for name in names}, native=case.native)[0]
            for sign in (1, -1)
        ]
        slope = float(((ends[0] - ends[1]) * weights).sum() / (2 * STEP))
        product = sum(float((ours * along[name]).sum()) for name, ours in zip(names, found, strict=True))
        assert product == pytest.approx(slope, rel=DIFFERENCE, abs=DIFFERENCE * np.abs(weights).sum())

    single = add_gradients(build(case, inputs, 1), names, seed=ByWeights())
    feeds32 = {key: value.astype(np.float32) for key, value in {**feeds, "seed": weights}.items()}
    y32, *ran = session(single).run(None, feeds32)
    theirs = y.detach().numpy()  # that onnxruntime means the same function
    np.testing.assert_allclose(y32, theirs, rtol=0, atol=SINGLE * max(np.abs(theirs).max(), 1))
    for name, ours, theirs in zip(names, ran, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=SINGLE * max(np.abs(theirs).max(), 1), err_msg=name)
