"""PyTorch networks on the whole road: builders, equal bytes, networks and preprocessing of the user's own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.export import export
from exporters.libraries import describe
from exporters.source import Recipe, Weights, sample_files
from exporters.torch import load
from exporters.torch_transform import transform_of
from runtime.errors import InvalidInput, UnknownName
from runtime.image import preprocess
from runtime.metadata import Preprocess
from runtime.model import Model
from tests.exporters.torch_support import BATCH, RULE, Tiny, loaded, named
from tests.exporters.torch_support import recipe as make_recipe
from zoo.labels import load as labels
from zoo.models import find

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:Detected pickle protocol")


def test_builders_nobody_knows() -> None:
    variant = find("lenet5").sources["torch"]
    recipe = Recipe(
        name="lenet5",
        builder=variant.builder,
        preprocess=variant.preprocess,
        labels=labels("digits"),
        weights=Weights(kind="none"),
    )
    for builder in ("torchvision:resnet51", "timm:resnet51", "exporters.architectures.lenet5:build", "nowhere:x", "x"):
        with pytest.raises(UnknownName):
            load(replace(recipe, builder=builder))


# ---- the same bytes each time


EXPORT = "import sys; from zoo.cli import main; "


def fresh(tmp_path: Path, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPORT + code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr


def lenet(output: str, source: str = "torch") -> str:
    return f"assert main(['export', 'lenet5', '--source', {source!r}, '-o', {output!r}]) == 0; "


@pytest.mark.slow
def test_exports_in_fresh_processes_are_identical(tmp_path: Path) -> None:
    options = "'--weights', 'none', '--input-size', '64x64', '-o', 'other.onnx'"
    other = f"assert main(['export', 'squeezenet1_1', {options}]) == 0; "
    fresh(tmp_path, lenet("a.onnx"))
    fresh(tmp_path, other + lenet("b.onnx") + lenet("c.onnx"))
    contents = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in "abc"}
    assert len(set(contents.values())) == 1
    assert contents["a"] != (tmp_path / "other.onnx").read_bytes()


# ---- networks of the user's own


RESNET = """
from torch import nn
from torch.nn import functional as F

class LambdaLayer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, x):
        return self.function(x)

class BasicBlock(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        pad = (0, 0, 0, 0, width // 4, width // 4)
        self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], pad)) if stride > 1 else nn.Sequential()
    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))

class ResNet(nn.Module):
    def __init__(self, blocks, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), *(BasicBlock(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), *(BasicBlock(64, 64, 1) for _ in range(blocks - 1)))
        self.linear = nn.Linear(64, num_classes)
    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))

def resnet20(num_classes=10):
    return ResNet(3, num_classes)
"""


@pytest.mark.slow
def test_real_weights_for_a_network_of_ones_own(tmp_path: Path, shared_data: Path) -> None:
    """CIFAR-10 ResNet-20 as its authors wrote it, saved by a parallel run: about 91 % by those who published it."""
    (tmp_path / "cifar.py").write_text(RESNET)
    rule = Preprocess(
        size=(32, 32), resize=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255
    )
    weights = Weights(kind="file", path=shared_data / "weights" / "resnet20_cifar10.th")
    builder = f"{tmp_path / 'cifar.py'}:resnet20"
    recipe = Recipe(name="resnet20", builder=builder, preprocess=rule, labels=None, weights=weights)
    done = export(recipe, "torch", tmp_path / "out.onnx")
    assert done.metadata.labels is not None
    assert len(done.metadata.labels.names) == 10
    data = np.load(shared_data / "cifar10" / "cifar10_subset.npz")
    with Model(done.path) as model:
        batches = [np.concatenate([preprocess(picture, rule) for picture in data["x_test"][k : k + 100]])
                   for k in range(0, 1000, 100)]  # fmt: skip
        answers = np.concatenate([model.run(batch).argmax(axis=1) for batch in batches])
    assert 0.9 < (answers == data["y_test"][:1000].ravel()).mean() < 0.94


@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_a_rule_without_a_library_behind_it(color: Any, scale: float) -> None:
    """torchvision's code on the rule's values gives what the runtime gives, which shares no code with it."""
    channels = 1 if color == "L" else 3
    rule = Preprocess(
        size=(20, 30), resize=33, color=color, scale=scale, interpolation="bicubic",
        mean=tuple(255 * scale * value for value in (0.4, 0.5, 0.6))[:channels],
        std=tuple(255 * scale * value for value in (0.2, 0.3, 0.25))[:channels],
    )  # fmt: skip
    source = loaded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(600 * channels, 3)), preprocess=rule)
    for path in sample_files("photos")[:3]:
        expected = preprocess(path, rule)
        np.testing.assert_allclose(source.transform(path), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("builder", "hub", "resize"),
    [
        ("torchvision:shufflenet_v2_x0_5", "IMAGENET1K_V1", 256),
        ("torchvision:mobilenet_v2", "IMAGENET1K_V2", 232),
        ("timm:mobilenetv3_small_050", None, 256),
        ("timm:mobilenetv3_small_050", "timm/mobilenetv3_small_050.lamb_in1k", 256),
    ],
)
def test_the_librarys_own_rule_is_the_other_side(builder: str, hub: str | None, resize: int) -> None:
    """A wrong mean is seen, whatever the weights are called; a size of the user's own is taken."""
    rule = describe(builder, hub=hub).preprocess
    assert rule.resize == resize
    weights = Weights(kind="none", hub=hub)
    recipe = Recipe(name="x", builder=builder, preprocess=rule, labels=None, weights=weights)
    path = sample_files("photos")[0]
    source = load(recipe)
    assert len(source.labels.names) == 1000
    for other in (rule, rule.at_size(96, 160)):
        transform = transform_of(replace(recipe, preprocess=other))
        np.testing.assert_allclose(transform(path), preprocess(path, other), rtol=0, atol=3e-5)
    wrong = replace(rule, mean=(0.5, 0.5, 0.5))
    off = transform_of(replace(recipe, preprocess=wrong))(path) - preprocess(path, wrong)
    assert np.abs(off).max() > 0.05


def test_without_preprocessing() -> None:
    make = lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(3 * 6 * 6, 2))  # noqa: E731
    for shape in (None, (3, 8, 8), (1, 8, 8)):
        with pytest.raises(InvalidInput, match="nobody wrote down its preprocessing: give --preprocess torch"):
            loaded(make, preprocess=None, input_shape=shape)
    source = loaded(make, preprocess=None, input_shape=(4, 8, 8))
    assert (source.preprocess, source.input_shape) == (None, (4, 8, 8))
    assert source.forward(np.zeros((5, 4, 8, 8), np.float32)).shape == (5, 2)
    with pytest.raises(InvalidInput, match="takes no pictures"):
        source.transform(sample_files("photos")[0])


def test_grey_and_odd_numbers_of_classes_in_libraries() -> None:
    grey = replace(RULE, color="L", mean=(0.5,), std=(0.25,), size=(32, 32), resize=(32, 32))
    source = load(make_recipe("timm:mobilenetv3_small_050", preprocess=grey, labels=named(7)))
    assert source.forward(np.zeros((2, 1, 32, 32), np.float32)).shape == (2, 7)
    binary = load(make_recipe("torchvision:shufflenet_v2_x0_5", task="binary", labels=named(2)))
    assert (binary.forward(BATCH).shape, binary.task) == ((3, 1), "binary")


def test_layouts_of_other_frameworks() -> None:
    with pytest.raises(InvalidInput, match="take NCHW"):
        loaded(Tiny, preprocess=replace(RULE, layout="NHWC"))


class Lazy(nn.Module):  # type: ignore[misc]
    """Its layers learn their shapes from what they are first given."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(options["num_classes"]))

    def forward(self, batch: Any) -> Any:
        return self.layers(batch)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_and_open_options(tmp_path: Path) -> None:
    assert loaded(lambda: Lazy(num_classes=6), labels=named(6)).forward(BATCH).shape == (3, 6)
