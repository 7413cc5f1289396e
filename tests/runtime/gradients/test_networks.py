"""Whole networks in float64: the input's gradient and Grad-CAM's, at the last map and a deep one.

Against torch.autograd, and for Keras against finite differences. 1e-5 of the largest value: the files keep weights
that float32 normalisations were folded into.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.passes import clean
from exporters.torch import load
from exporters.torch_untrained import enliven
from runtime.gradients import ByIndex, ByWeights, add_gradients, gradient_name
from tests.exporters.torch_support import RULE, recipe
from tests.runtime.gradients.running import doubled, run64, session

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

Array = np.ndarray[Any, Any]
Zoo = Callable[..., Any]
EXACT = 1e-5


def pictures(*shape: int) -> Array:
    return np.random.default_rng(7).normal(size=shape)


def autograd(network: Any, x: Array, weights: Array, layers: list[str]) -> list[Array]:
    """torch's gradients of the input and of what these modules give."""
    kept: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _given: Any, made: Any) -> None:
            made.retain_grad()
            kept[name] = made

        return hook

    network = network.double().eval()
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # or a hook sees what the next layer wrote over it
    for name in layers:
        network.get_submodule(name).register_forward_hook(keep(name))
    given = torch.from_numpy(x).requires_grad_()
    network(given).backward(torch.from_numpy(weights))
    return [given.grad.numpy(), *(kept[name].grad.numpy() for name in layers)]


def near(ours: Array, theirs: Array, bound: float = EXACT) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


def test_lenet(lenet_file: Path) -> None:
    """Before each ReLU: behind one its zeros are ties for the pooling, where differences have no limit."""
    model = doubled(onnx.load(lenet_file))
    layers = ["input", *(node.output[0] for node in model.graph.node if node.op_type == "Conv")]
    x, weights = pictures(2, 1, 28, 28), pictures(2, 10)
    found = run64(add_gradients(model, layers, seed=ByWeights(), plain=False), {"input": x, "seed": weights})
    for name, ours in zip(layers, found, strict=True):
        check_by_differences(model, name, x, weights, ours)


def check_by_differences(model: onnx.ModelProto, name: str, x: Array, weights: Array, grad: Array) -> None:
    """Move the tensor along a direction, in the part of the network behind it.

    A step of 1e-6 in float64: rounding 1e-10, and what a ReLU near zero adds.
    """
    rest = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([name], ["logits"])
    if name == "input":
        value = x
    else:
        front = onnx.ModelProto()
        front.CopyFrom(model)
        del front.graph.output[:]
        front.graph.output.append(onnx.helper.make_tensor_value_info(name, 11, None))
        (value,) = run64(front, {"input": x})
    along = pictures(*value.shape)
    ends = [run64(rest, {name: value + sign * 1e-6 * along})[0] for sign in (1, -1)]
    slope = float(((ends[0] - ends[1]) * weights).sum()) / 2e-6
    assert float((grad * along).sum()) == pytest.approx(slope, rel=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("squeezenet1_1", ["classifier.2", "features.7.expand1x1_activation"]),  # MaxPool with ceil_mode, Concat
        ("mobilenet_v3_small", ["features.12.2", "features.3.block.0.2"]),  # depthwise, HardSwish, gates
        ("resnet18", ["layer4.1.relu", "layer2.0.relu"]),
    ],
)
def test_torch_rows(tmp_path: Path, name: str, layers: list[str]) -> None:
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).eval()
    enliven(network, torch.randn(4, 3, 64, 64), 0)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    source = load(recipe(f"torchvision:{name}", tmp_path / "w.pth", preprocess=RULE.at_size(64, 64)))
    model = clean(source.convert(18, None), opset=18, batch=None, layout="NCHW")
    x, weights = pictures(2, 3, 64, 64), pictures(2, 1000)
    made = add_gradients(doubled(model), ["input", *layers], seed=ByWeights(), plain=False)
    found = run64(made, {"input": x, "seed": weights})
    for ours, theirs in zip(found, autograd(network, x, weights, layers), strict=True):
        near(ours, theirs)
    # By index, batched, in onnxruntime's float32: Grad-CAM at the last map.
    single = session(add_gradients(model, layers[:1], seed=ByIndex(), plain=False))
    one = single.run(None, {"input": x.astype(np.float32), "class_index": np.array([3, 999])})[0]
    near(one, autograd(network, x, np.eye(1000)[[3, 999]], layers[:1])[1], 1e-4)


def vit() -> Any:
    return torchvision.models.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=10)


def swin() -> Any:
    return torchvision.models.SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=10)


def convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)], num_classes=10)


def maxvit() -> Any:
    return torchvision.models.MaxVit((16, 16), 8, 2, [8, 8], [2, 2], 4, 0.0, num_classes=10)


@pytest.mark.slow
@pytest.mark.parametrize("build", [vit, swin, convnext, maxvit])
def test_small_transformers_as_torch_exports_them(build: Callable[[], Any], tmp_path: Path) -> None:
    """Straight from torch.onnx.export, as third parties hand files on."""
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    program = torch.onnx.export(
        network, (torch.randn(2, 3, 16, 16),), dynamo=True, input_names=["input"], verbose=False
    )
    model = doubled(program.model_proto)
    x, weights = pictures(2, 3, 16, 16), pictures(2, 10)
    (found,) = run64(add_gradients(model, ["input"], seed=ByWeights(), plain=False), {"input": x, "seed": weights})
    near(found, autograd(network, x, weights, [])[0])


@pytest.mark.slow
def test_a_keras_row(zoo: Zoo, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    options = ["--source", "keras", "--weights", "none", "--input-size", "32x32"]
    assert zoo("export", "mini_xception", *options, "-o", output).code == 0
    model = doubled(onnx.load(output))
    layers = ["input", "block5", "block2"]
    x, weights = pictures(2, 3, 32, 32), pictures(2, model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    found = run64(add_gradients(model, layers, seed=ByWeights(), plain=False), {"input": x, "seed": weights})
    for name, ours in zip(layers, found, strict=True):
        check_by_differences(model, name, x, weights, ours)


@pytest.mark.parametrize("file", ["mnist.onnx", "ultraface-RFB-320.onnx"])
def test_files_of_other_people(shared_data: Path, file: str) -> None:
    """float32 in onnxruntime: a gradient, not zero, and the score moves along it as it says."""
    model = onnx.load(shared_data / "onnx" / file)
    weights = {tensor.name for tensor in model.graph.initializer}
    given = next(value for value in model.graph.input if value.name not in weights)
    of = model.graph.output[0].name
    made = session(add_gradients(model, [given.name], of=of, seed=ByWeights()))
    shape = [dim.dim_value or 1 for dim in given.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plain = session(model)
    y = plain.run([of], {given.name: x})[0]
    seed = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    (grad,) = made.run([gradient_name(given.name)], {given.name: x, "seed": seed})
    step = (1e-3 * grad / np.abs(grad).max()).astype(np.float32)
    ends = [plain.run([of], {given.name: x + sign * step})[0].astype(float) for sign in (1, -1)]
    slope = float(((ends[0] - ends[1]) * seed).sum()) / 2
    # A step as small as float32 allows still passes kinks: a few per cent.
    assert float((grad.astype(float) * step).sum()) == pytest.approx(slope, rel=0.05)


def test_a_style_transfer_of_2018(shared_data: Path) -> None:
    """Crop, Affine and ImageScaler, of which onnx knows nothing; at its size of 720x720 a run takes seconds."""
    model = onnx.load(shared_data / "onnx" / "candy.onnx")
    made = add_gradients(model, ["inputImage"], of=model.graph.output[0].name, seed=ByWeights())
    given = session(made)
    assert given.get_outputs()[-1].shape[1:] == [3, 720, 720]
    assert {"Crop", "Affine", "ImageScaler"} <= {node.op_type for node in made.graph.node}
