"""Both exporters' graphs of networks of a few layers, cleaned."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.passes import clean
from runtime.errors import ExportFailed
from tests.exporters.graphs import Array, normal
from tests.exporters.passes.graph import operators, run

# Some hundred float32 roundings, folded otherwise; as part of the largest logit.
PARITY = 1e-5


def relative(given: Array, expected: Array) -> float:
    assert given.shape == expected.shape
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def default_session(proto: onnx.ModelProto, images: Array) -> Array:
    """With onnxruntime's own optimizer, as the artifact will be run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, {"input": images})[0]
    return logits


def torch_networks() -> dict[str, tuple[Any, str]]:
    """By name: a network, and the operators its artifact may have."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Mobile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
            self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
            self.less, self.more = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5))

        def forward(self, images: Any) -> Any:
            stem = self.stem(images)
            deep = self.deep(stem)
            gate = functional.hardsigmoid(self.more(torch.relu(self.less(deep.mean((2, 3), keepdim=True)))))
            return self.head(stem + deep * gate)

    class Spelled(nn.Module):
        """As older code has it: activations written out, zeros padded before a pool of raw numbers, a shuffle."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, images: Any) -> Any:
            maps = functional.max_pool2d(functional.pad(self.conv(images), (1, 1, 1, 1)), 3, 2)
            maps = torch.relu(self.norm(maps))
            batch, channels, height, width = maps.shape
            maps = (
                maps.view(batch, 2, channels // 2, height, width)
                .transpose(1, 2)
                .reshape(batch, channels, height, width)
            )
            maps = maps * functional.relu6(maps + 3) / 6
            return self.fc(maps.mean([2, 3]).view(batch, -1))

    common = "Conv Relu GlobalAveragePool Gemm Reshape Mul Add"
    return {
        "mobile": (Mobile(), f"{common} HardSwish HardSigmoid Clip"),
        "spelled": (Spelled(), f"{common} BatchNormalization Pad MaxPool Transpose HardSwish"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("name", ["mobile", "spelled"])
def test_torch(name: str, opset: int) -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, allowed = torch_networks()[name]
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    free = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, 16, 16),), dynamo=True, opset_version=opset, dynamic_shapes=free, verbose=False
    )
    result = clean(program.model_proto, opset=opset, batch=None)
    assert set(operators(result).split()) <= set(allowed.split())
    for batch in (1, 3):
        images = normal(batch, 3, 16, 16, seed=batch)
        assert relative(default_session(result, images), network(torch.from_numpy(images)).numpy()) < PARITY


@pytest.mark.slow
def test_torch_below_18_is_refused_in_so_many_words() -> None:
    """Its exporter writes 18 and only warns when it cannot convert to what was asked."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(5)).eval()
    network(torch.zeros(1, 3, 8, 8))

    class Mean(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return network(images - images.mean((2, 3), keepdim=True))

    program = torch.onnx.export(Mean().eval(), (torch.zeros(2, 3, 8, 8),), dynamo=True, opset_version=15, verbose=False)
    with pytest.raises(ExportFailed, match="wrote opset 18 instead of 15: choose --opset 18"):
        clean(program.model_proto, opset=15, batch=2)


def keras_networks() -> dict[str, Any]:
    """Networks of 16x16 pictures."""
    import keras
    from keras import layers

    def norm(maps: Any) -> Any:
        return layers.BatchNormalization()(maps)

    def model(body: Any) -> Any:
        pictures = layers.Input((16, 16, 3))
        return keras.Model(pictures, body(pictures))

    def separable(maps: Any) -> Any:
        maps = layers.ZeroPadding2D(((0, 1), (0, 1)))(maps)
        maps = norm(layers.Conv2D(8, 3, strides=2, use_bias=False)(maps))
        deep = layers.ReLU(6.0)(norm(layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(maps)))
        maps = layers.MaxPooling2D(3, 2, padding="same")(layers.Add()([maps, deep]))
        return layers.Dense(5)(layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(maps)))

    def hard(maps: Any) -> Any:
        maps = layers.Activation("hard_swish")(norm(layers.Conv2D(8, 3, strides=2, padding="same")(maps)))
        gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(maps))
        maps = layers.Multiply()([maps, layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
        maps = layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(maps))
        return layers.Flatten()(maps)

    def slopes(maps: Any) -> Any:
        maps = layers.LeakyReLU()(layers.Conv2D(8, 3)(maps))
        maps = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(maps)
        maps = layers.PReLU(alpha_initializer="random_normal")(layers.AveragePooling2D(2)(maps))
        return layers.Dense(5)(layers.Flatten()(maps))

    def gated(maps: Any) -> Any:
        maps = layers.Rescaling(1 / 127.5, offset=-1)(maps)
        maps = layers.Activation("silu")(layers.Conv2D(8, 3, padding="same")(maps))
        gate = layers.Dense(8, activation="sigmoid")(
            layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(maps))
        )
        maps = layers.Multiply()([maps, layers.Reshape((1, 1, 8))(gate)])
        maps = layers.Concatenate()([maps, layers.Softmax()(layers.Conv2D(8, 1)(maps))])
        maps = layers.Conv2D(6, 3)(layers.Cropping2D(((1, 0), (2, 1)))(maps))
        return layers.Dense(5)(layers.GlobalMaxPooling2D()(maps))

    def preactivated(maps: Any) -> Any:
        maps = layers.Conv2D(8, 3, padding="same", bias_initializer=keras.initializers.Constant(-3))(maps)
        maps = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(maps))
        maps = layers.Conv2D(8, 3)(layers.Activation("relu")(norm(maps)))
        return layers.Dense(5)(layers.GlobalAveragePooling2D()(maps))

    bodies = {"separable": separable, "hard": hard, "slopes": slopes, "gated": gated, "preactivated": preactivated}
    return {name: model(body) for name, body in bodies.items()}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 15, 17, 18])
@pytest.mark.parametrize("name", ["separable", "hard", "slopes", "gated", "preactivated"])
def test_keras(name: str, opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow
    import tf2onnx

    keras.utils.set_random_seed(0)
    network = keras_networks()[name]
    rng = np.random.default_rng(0)
    for variable in network.weights:
        if "moving" in variable.path or "gamma" in variable.path or "beta" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    signature = [tensorflow.TensorSpec((None, 16, 16, 3), tensorflow.float32, name="input")]
    raw, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=opset)
    result = clean(raw, opset=opset, batch=None)
    counts = Counter(operators(result).split())
    assert not counts["BatchNormalization"] + counts["ReduceMean"]
    if opset < 15 and name == "slopes":  # no inference sees through a Shape there: Flatten is computed at run time
        assert counts["Transpose"] == 1
    else:
        assert not counts["Transpose"] + counts["Shape"] + counts["MatMul"]
    if name == "hard":
        assert (counts["HardSwish"], counts["HardSigmoid"]) == ((1, 1) if opset >= 14 else (0, 2))
    for batch in (1, 3):
        images = 100 * normal(batch, 16, 16, 3, seed=batch)
        expected = np.asarray(network(images, training=False))
        runner = default_session if opset >= 18 or name != "preactivated" else lambda proto, x: run(proto, input=x)[0]
        assert relative(runner(result, np.ascontiguousarray(images.transpose(0, 3, 1, 2))), expected) < PARITY
