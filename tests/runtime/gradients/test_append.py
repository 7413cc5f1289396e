"""What is added to a model, under which names, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from runtime.errors import InvalidArtifact, InvalidInput, UnknownName
from runtime.gradients import (
    ByIndex,
    ByTensor,
    ByWeights,
    NoGradient,
    UnsupportedOperator,
    add_gradients,
    gradient_name,
    readable,
)
from runtime.gradients.rules import NON_DIFFERENTIABLE
from tests.runtime.gradients.running import graph, node, session

Array = np.ndarray[Any, Any]
X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_model_s_own_come_first_and_stay_what_they_are(tiny_model: onnx.ModelProto) -> None:
    before = tiny_model.SerializeToString()
    made = add_gradients(tiny_model, ["relu", "input"], keep=["relu", "logits"])
    assert tiny_model.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    assert [value.name for value in made.graph.input] == ["input", "class_index"]
    assert [value.name for value in made.graph.output] == ["logits", "relu", "relu::gradient", "input::gradient"]
    assert list(made.graph.node[:5]) == list(tiny_model.graph.node)
    assert list(made.graph.initializer) == list(tiny_model.graph.initializer)  # shared, none copied
    found = session(made).run(None, {"input": X, "class_index": np.array([2])})
    (plain,) = session(tiny_model).run(None, {"input": X})
    np.testing.assert_array_equal(found[0], plain)
    assert [array.shape for array in found] == [(3, 4), (3, 6, 8, 8), (3, 6, 8, 8), (3, 3, 8, 8)]
    alone = add_gradients(tiny_model, ["relu"], plain=False)
    assert [value.name for value in alone.graph.output] == [gradient_name("relu")]


def test_by_index(tiny_model: onnx.ModelProto) -> None:
    """Behind the mean over 64 pixels the gradient of class c is fw[:, c] / 64."""
    made, fw = session(add_gradients(tiny_model, ["relu"])), weights(tiny_model)["fw"]
    logits, found = made.run(None, {"input": X, "class_index": np.array([2, 0, 3])})
    np.testing.assert_allclose(found[:, :, 5, 1], fw.T[[2, 0, 3]] / 64, rtol=1e-6)
    one_for_all = made.run(None, {"input": X, "class_index": np.array([1])})[1]
    np.testing.assert_allclose(one_for_all[:, :, 0, 7], np.stack([fw.T[1] / 64] * 3), rtol=1e-6)
    top = made.run(None, {"input": X, "class_index": np.array([-1])})[1]
    np.testing.assert_allclose(top[:, :, 0, 0], fw.T[logits.argmax(axis=1)] / 64, rtol=1e-6)
    with pytest.raises(Exception, match=r"out of data bounds|out of bounds"):
        made.run(None, {"input": X, "class_index": np.array([4])})


def test_an_index_with_a_default_may_be_left_out(tiny_model: onnx.ModelProto) -> None:
    made = session(add_gradients(tiny_model, ["relu"], seed=ByIndex("which", default=1)))
    asked = made.run(None, {"input": X, "which": np.array([1])})[1]
    np.testing.assert_array_equal(made.run(None, {"input": X})[1], asked)


def test_by_weights_and_by_tensor(tiny_model: onnx.ModelProto) -> None:
    fw = weights(tiny_model)["fw"]
    seed = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    logits, found = session(add_gradients(tiny_model, ["gap"], seed=ByWeights())).run(None, {"input": X, "seed": seed})
    np.testing.assert_allclose(found[:, :, 0, 0], seed @ fw.T, rtol=1e-5, atol=1e-6)  # float32 sums of four
    found = session(add_gradients(tiny_model, ["gap"], seed=ByTensor("logits"))).run(None, {"input": X})[1]
    np.testing.assert_allclose(found[:, :, 0, 0], logits @ fw.T, rtol=1e-5, atol=1e-6)


def test_any_tensor_can_be_differentiated(tiny_model: onnx.ModelProto) -> None:
    """The sum of one channel of a convolution: its kernels, laid over the picture."""
    made = add_gradients(tiny_model, ["input"], of="conv", seed=ByIndex())
    (found,) = session(made).run(["input::gradient"], {"input": X, "class_index": np.array([4])})
    w = weights(tiny_model)["w"]
    np.testing.assert_allclose(found[0, :, 3, 3], w[4].sum(axis=(1, 2)), rtol=1e-5)


def test_a_tensor_s_gradient_with_respect_to_itself_is_the_seed(tiny_model: onnx.ModelProto) -> None:
    made = session(add_gradients(tiny_model, ["logits", "flat"], seed=ByWeights()))
    seed = np.eye(4, dtype=np.float32)[:3]
    found = made.run(["logits::gradient"], {"input": X, "seed": seed})[0]
    np.testing.assert_array_equal(found, seed)


def test_unknown_names(tiny_model: onnx.ModelProto) -> None:
    with pytest.raises(UnknownName, match=r"no tensor 'rleu': did you mean .*relu"):
        add_gradients(tiny_model, ["rleu"])
    with pytest.raises(UnknownName, match="no tensor 'score'"):
        add_gradients(tiny_model, ["relu"], of="score")
    with pytest.raises(UnknownName, match="no tensor 'map'"):
        add_gradients(tiny_model, ["relu"], keep=["map"])


def test_requests_without_sense(tiny_model: onnx.ModelProto) -> None:
    for wrt in ([], ["relu", "relu"]):
        with pytest.raises(InvalidInput, match="each once"):
            add_gradients(tiny_model, wrt)
    with pytest.raises(InvalidInput, match="'input' already"):
        add_gradients(tiny_model, ["relu"], seed=ByIndex("input"))
    with pytest.raises(InvalidInput, match="no classes along axis 2"):
        add_gradients(tiny_model, ["relu"], seed=ByIndex(axis=2))
    two = graph(node("Relu", "x", "y"), node("Neg", "x", "z"), outputs=("y", "z"))
    with pytest.raises(InvalidInput, match="2 outputs: choose one of y, z"):
        add_gradients(two, ["x"])
    assert len(add_gradients(two, ["x"], of="z").graph.output) == 3


def test_an_operator_without_a_rule_is_named_with_the_place_for_it() -> None:
    model = graph(node("Relu", "x", "r"), node("Det", "r", "d"), node("Mul", "d x", "y"), shape=(4, 4))
    with pytest.raises(UnsupportedOperator, match=r"Det, opset 11?8, node 'the Det': .*runtime/gradients/rules.py"):
        add_gradients(model, ["x"])
    add_gradients(model, ["d"])  # it is not between


def test_control_flow_and_foreign_operators_are_refused_not_passed_by() -> None:
    """Also where a branch takes what it needs from outside, without an input of its own."""
    inside = helper.make_graph([node("Neg", "x", "b")], "b", [], [helper.make_tensor_value_info("b", 1, None)])
    branches = helper.make_node("If", ["c"], ["i"], then_branch=inside, else_branch=inside)
    model = graph(branches, node("Add", "i x", "y"))
    model.graph.input.append(helper.make_tensor_value_info("c", 9, []))
    with pytest.raises(UnsupportedOperator, match="no rule for If, opset 18, node 'i'"):
        add_gradients(model, ["x"])
    model = graph(helper.make_node("Relu", ["x"], ["r"], domain="own"), node("Neg", "r", "y"))
    model.opset_import.append(helper.make_opsetid("own", 3))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, ["n", 4]))
    with pytest.raises((UnsupportedOperator, InvalidArtifact), match="own"):
        add_gradients(model, ["x"])


def test_no_silent_zero() -> None:
    with pytest.raises(
        NoGradient, match=r"no gradient leads from 'y' to 'x': Round, opset 18, node 'the Round': it is"
    ):
        add_gradients(graph(node("Round", "x", "r"), node("Neg", "r", "y")), ["x"])
    two = graph(node("Relu", "x", "y"), node("Neg", "x", "z"), outputs=("y", "z"))
    with pytest.raises(NoGradient, match="'y' does not depend on 'z': choose a tensor before it"):
        add_gradients(two, ["z"], of="y")


@pytest.mark.parametrize("kind", NON_DIFFERENTIABLE)
def test_what_has_no_gradient_says_why(kind: str) -> None:
    """And stops nothing else: the sum has the other path."""
    model = graph(node(kind, "x", "s"), node("Cast", "s", "f", to=1), node("Add", "f x", "y"))
    del model.graph.value_info[:]
    for name, of_type in (("s", 7), ("f", 1), ("y", 1)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, of_type, ["n", 4]))
    from runtime.gradients.builder import Builder
    from runtime.gradients.graph import Graph
    from runtime.gradients.sweep import sweep

    known = Graph(model)
    known._types = {name: (kind, ("n", 4)) for name, kind in (("x", 1), ("s", 1), ("f", 1), ("y", 1), ("w", 1))}
    builder = Builder(known)
    seed = builder.tensor("y")
    assert sweep(known, "y", seed, ["x"], builder)["x"] is seed
    with pytest.raises(NoGradient, match=f"{kind}, .*: {NON_DIFFERENTIABLE[kind]}"):
        sweep(known, "f", builder.tensor("f"), ["x"], builder)


def test_forms_that_are_not_covered() -> None:
    second = node("MaxPool", "x", "p i", kernel_shape=[2, 2]), node("Cast", "i", "f", to=1), node("Add", "p f", "y")
    pool = graph(*second, shape=("n", 3, 8, 8))
    with pytest.raises(UnsupportedOperator, match="MaxPool, opset 18, node 'the MaxPool': its second output is used"):
        add_gradients(pool, ["x"])
    dynamic = graph(node("Conv", "x x", "y"), shape=(4, 4, 1, 1))
    with pytest.raises(UnsupportedOperator, match="its weights are computed"):
        add_gradients(dynamic, ["x"])
    wide = graph(node("Relu", "x", "r"), node("GlobalAveragePool", "r", "y"), shape=("n", 4, "h", "w"))
    with pytest.raises(InvalidArtifact, match=r"shape \('n', 4, 'h', 'w'\): give the model's input a fixed size"):
        add_gradients(wide, ["x"])
    with pytest.raises(InvalidArtifact, match="opset 6: gradients need 7 or later"):
        add_gradients(graph(node("Relu", "x", "y"), opset=6), ["x"])


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21, 24])
def test_old_and_new_opsets_give_the_same(opset: int) -> None:
    """The operators whose form the builder chooses by the opset, against a float64 formula."""
    model = graph(node("MatMul", "x w", "m"), node("Softmax", "m", "s", axis=1), node("Mul", "s x", "y"), opset=opset)
    made = session(add_gradients(model, ["x"], seed=ByWeights(), plain=False))
    x, seed = X[:, 0, 0, :4], X[:, 1, 0, :4]
    soft = np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=1, keepdims=True)
    inner = seed * x
    expected = seed * soft + soft * (inner - (inner * soft).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(made.run(None, {"x": x, "seed": seed})[0], expected, rtol=0, atol=1e-6)  # float32


def test_weights_that_are_inputs_as_files_of_2018_have_them() -> None:
    model = graph(node("Gemm", "x w w", "y"), opset=9, shape=(4, 4))
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 4]))
    made = add_gradients(model, ["x"], seed=ByWeights())
    assert [value.name for value in made.graph.input] == ["x", "seed"]
    found = session(made).run(["x::gradient"], {"x": X[0, 0, :4, :4], "seed": X[0, 1, :4, :4]})[0]
    np.testing.assert_array_equal(found, X[0, 1, :4, :4])


def test_model_local_functions_are_looked_into() -> None:
    twice = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                 [helper.make_opsetid("", 18)])  # fmt: skip
    model = graph(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("own", 1))
    made = session(add_gradients(model, ["x"], seed=ByWeights()))
    found = made.run(["x::gradient"], {"x": X[0, 0, :4, :4], "seed": X[0, 0, :4, :4]})[0]
    np.testing.assert_array_equal(found, 2 * X[0, 0, :4, :4])


def test_indices_that_are_computed() -> None:
    model = graph(node("Gather", "x i", "y", axis=1))
    model.graph.input.append(helper.make_tensor_value_info("i", 7, [2, 2]))
    made = session(add_gradients(model, ["x"], seed=ByWeights(), plain=False))
    seed = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    feeds = {"x": X[0, 0, :3, :4], "i": np.array([[1, -1], [1, 0]]), "seed": seed}
    expected = np.stack([seed[:, 1, 1], seed[:, 0, 0] + seed[:, 1, 0], 0 * seed[:, 0, 0], seed[:, 0, 1]], 1)
    np.testing.assert_array_equal(made.run(None, feeds)[0], expected)
    model.opset_import[0].version = 13
    with pytest.raises(UnsupportedOperator, match=r"Gather, opset 13, .* needs opset 16"):
        add_gradients(model, ["x"], seed=ByWeights())


def test_readable_is_the_name_itself_in_float(tiny_model: onnx.ModelProto) -> None:
    assert readable(tiny_model, "relu") == "relu"
    with pytest.raises(UnknownName):
        readable(tiny_model, "nothing")


def test_importing_loads_no_onnx() -> None:
    code = "import sys, runtime, runtime.gradients; assert not {'onnx', 'numpy', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
