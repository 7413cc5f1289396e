"""Keras networks as ONNX: every kind of layer that needed an answer of its own, and what a file says of its road."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.keras_convert import prepare
from exporters.passes import clean, explain_layer
from exporters.source import package_version
from runtime.errors import ExportFailed
from tests.exporters.graphs import run

pytest.importorskip("tensorflow")

SHAPE = (3, 16, 12)
PIXELS = np.random.default_rng(0).uniform(-1, 1, size=(3, *SHAPE)).astype(np.float32)
SMALL = 2e-6
"""Largest difference, of the largest logit: float32 sums in another order, through 5 layers or through hundreds."""
TF2ONNX = f"tf2onnx {package_version('tf2onnx')}"


def scrambled(model: Any) -> Any:
    """Seeded values for what begins as zeros and ones: a scale, a bias or a mean left out then shows."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) < 2:
            weight.assign(rng.uniform(0.5, 1.5, size=weight.shape))
    return model


def converted(
    model: Any, *, opset: int = 18, batch: int | None = None, shape: Any = SHAPE, tolerance: float = SMALL
) -> onnx.ModelProto:
    """The cleaned ONNX model, compared with Keras."""
    result = clean(prepare(model, shape).convert(opset, batch), opset=opset, batch=batch)
    pictures = np.random.default_rng(0).uniform(-1, 1, size=(batch or 3, *shape)).astype(np.float32)
    expected = np.asarray(model(pictures.transpose(0, 2, 3, 1), training=False))
    (given,) = run(result, {"input": pictures})
    assert given.shape == expected.shape
    assert np.abs(given - expected).max() <= tolerance * np.abs(expected).max()
    return result


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def small(keras: Any, *layers: Any) -> Any:
    """The layers between a first convolution to 8 channels and a classifier of 5 classes."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    stem = keras.layers.Conv2D(8, 3, name="stem")
    return scrambled(keras.Sequential([keras.Input((16, 12, 3)), stem, *layers, *head]))


def block(keras: Any) -> list[Any]:
    """What ConvNeXt's block is made of."""
    layers = keras.layers
    return [
        layers.Conv2D(8, 7, padding="same", groups=8, name="depthwise"),
        layers.LayerNormalization(epsilon=1e-6, name="norm"),
        layers.Dense(32, name="wide"),
        layers.Activation("gelu", name="gelu"),
        layers.Dense(8, name="narrow"),
    ]


def test_a_convnext_block(keras: Any) -> None:
    model = small(keras, *block(keras))
    assert prepare(model, SHAPE).road == f"{TF2ONNX}, functions inlined, Erfc as 1 - Erf"
    result = converted(model)
    assert operators(result) == Counter(
        # in front of LayerNormalization and in front of the average
        Conv=2, Transpose=2, LayerNormalization=1, MatMul=2, Add=3, Div=1, Erf=1, Mul=2,
        GlobalAveragePool=1, Flatten=1, Gemm=1,
    )  # fmt: skip
    assert {"stem", "depthwise", "norm", "wide", "gelu", "narrow"} <= {node.name for node in result.graph.node}
    assert explain_layer(result) == "global_average_pooling2d.transpose"


@pytest.mark.parametrize("opset", [13, 16, 17])
@pytest.mark.parametrize("batch", [None, 2])
def test_older_opsets_and_a_frozen_batch(opset: int, batch: int | None, keras: Any) -> None:
    result = converted(small(keras, *block(keras)), opset=opset, batch=batch)
    assert operators(result)["LayerNormalization"] == (opset >= 17)
    assert operators(result)["Reshape"] == 0
    size = result.graph.input[0].type.tensor_type.shape.dim[0]
    assert (size.dim_value, size.dim_param) == ((batch, "") if batch else (0, "batch"))


def test_a_plain_network_goes_the_plain_road(keras: Any) -> None:
    model = small(keras, keras.layers.BatchNormalization(), keras.layers.ReLU())
    assert prepare(model, SHAPE).road == TF2ONNX
    assert operators(converted(model)) == Counter(Conv=1, Relu=1, GlobalAveragePool=1, Flatten=1, Gemm=1)


def test_only_what_was_done_is_said(keras: Any) -> None:
    layers = keras.layers
    assert prepare(small(keras, layers.Conv2D(8, 3, groups=2)), SHAPE).road == f"{TF2ONNX}, functions inlined"
    assert prepare(small(keras, layers.Activation("gelu")), SHAPE).road == f"{TF2ONNX}, Erfc as 1 - Erf"


def test_layer_by_layer(keras: Any) -> None:
    """Weights too large for the optimizer's own limit, and each kind of layout that tf2onnx leaves to us."""
    layers = keras.layers
    body = [
        layers.SeparableConv2D(1024, 3, padding="same"),
        layers.DepthwiseConv2D(3, strides=2),
        layers.BatchNormalization(),
        layers.Activation("silu"),
        layers.Conv2D(8, 1),
        layers.GroupNormalization(2),
        layers.Conv2DTranspose(4, 3, strides=2),
        layers.UpSampling2D(2),
        layers.ZeroPadding2D(((1, 2), (3, 4))),
        layers.Cropping2D(1),
        layers.MaxPooling2D(2),
    ]
    assert operators(converted(small(keras, *body)))["BatchNormalization"] == 0


def test_constants_that_are_no_weights(keras: Any) -> None:
    """A Normalization layer holds its mean and variance as tensors."""
    layers = keras.layers
    keras.backend.clear_session()
    norm = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    model = keras.Sequential([keras.Input((16, 12, 3)), norm, layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(5)])
    assert operators(converted(model))["Gemm"] == 1


def test_a_layer_used_twice_keeps_one_set_of_weights(keras: Any) -> None:
    keras.backend.clear_session()
    picture = keras.Input((16, 12, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    flat = keras.layers.Flatten()(shared(shared(picture)))
    result = converted(scrambled(keras.Model(picture, keras.layers.Dense(5, name="head")(flat))))
    convolutions = [node for node in result.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    assert len({name for node in convolutions for name in node.input[1:]}) == 2


def test_weights_are_the_networks_own_and_stay_there(keras: Any) -> None:
    model = small(keras, *block(keras))
    before = [weight.numpy().copy() for weight in model.weights]
    proto = prepare(model, SHAPE).convert(18, None)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    assert all(any(np.array_equal(array, value) for array in arrays) for value in before)


def test_functions_run_compiled_again_afterwards(keras: Any) -> None:
    import tensorflow as tf

    prepare(small(keras, *block(keras)), SHAPE)
    assert not tf.config.functions_run_eagerly()


def test_state_that_no_layer_holds_is_refused(keras: Any) -> None:
    import tensorflow as tf

    hidden = tf.Variable(2.0)

    class Doubling(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * hidden

    with pytest.raises(ExportFailed, match="state that is in none of its layers"):
        prepare(small(keras, Doubling()), SHAPE)


def test_what_tensorflow_cannot_trace_is_named(keras: Any) -> None:
    class Peeking(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * float(inputs[0, 0, 0, 0])  # a number that is not there before a picture is

        def compute_output_spec(self, inputs: Any) -> Any:
            return keras.KerasTensor(inputs.shape, inputs.dtype)

    with pytest.raises(ExportFailed, match="TensorFlow cannot trace the network: "):
        prepare(small(keras, Peeking()), SHAPE)


def test_an_operator_that_onnx_does_not_have_is_named(keras: Any) -> None:
    class Inverse(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return keras.ops.erfinv(keras.ops.tanh(inputs))

    proto = prepare(small(keras, Inverse()), SHAPE).convert(18, None)
    with pytest.raises(ExportFailed, match="Erfinv"):
        clean(proto, opset=18, batch=None)
