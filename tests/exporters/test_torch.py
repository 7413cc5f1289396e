"""PyTorch networks on the whole road: builders, equal bytes, the rows of the catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from exporters.architectures.lenet5 import build_torch
from exporters.source import Recipe, Weights
from exporters.torch import load
from runtime.errors import UnknownName
from zoo.labels import load as labels
from zoo.models import MODELS, find
from zoo.spec import Variant

torch = pytest.importorskip("torch")
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
    other = "assert main(['export', 'squeezenet1_1', '--weights', 'none', '-o', 'other.onnx']) == 0; "
    fresh(tmp_path, lenet("a.onnx"))
    fresh(tmp_path, lenet("b.onnx"))
    fresh(tmp_path, other + lenet("c.onnx") + lenet("d.onnx"))
    contents = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in "abcd"}
    assert len(set(contents.values())) == 1
    assert contents["a"] != (tmp_path / "other.onnx").read_bytes()


# ---- the rows of the catalogue


VARIANTS = [(spec.name, spec.sources["torch"]) for spec in MODELS if "torch" in spec.sources]


def built(variant: Variant) -> Any:
    """The network with random weights, on no device at all: only its shapes count."""
    library, _, name = variant.builder.partition(":")
    with torch.device("meta"):
        if library == "torchvision":
            import torchvision

            return torchvision.models.get_model(name, weights=None)
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=False)
        return build_torch()


@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_parameters_are_counted(name: str, variant: Variant) -> None:
    assert sum(parameter.numel() for parameter in built(variant).parameters()) == variant.parameters


@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_preprocessing_is_the_librarys(name: str, variant: Variant) -> None:
    rule = variant.preprocess
    library, _, network = variant.builder.partition(":")
    if library == "torchvision":
        import torchvision

        assert variant.hub is not None
        preset = torchvision.models.get_model_weights(network)[variant.hub].transforms()
        own = (preset.resize_size, preset.crop_size, preset.mean, preset.std, preset.interpolation.value)
        assert (rule.resize, rule.size[0], rule.mean, rule.std, rule.interpolation) == (
            own[0][0], own[1][0], tuple(own[2]), tuple(own[3]), own[4]
        )  # fmt: skip
        assert torchvision.models.get_model_weights(network)[variant.hub].meta["num_params"] == variant.parameters
    elif library == "timm":
        import timm

        cfg = timm.get_pretrained_cfg(network)
        # The configuration and the file are those of one training run.
        assert cfg.hf_hub_id == variant.hub
        assert cfg.license == variant.license.lower()
        assert (3, *rule.size) == cfg.input_size
        assert (rule.mean, rule.std, rule.interpolation) == (cfg.mean, cfg.std, cfg.interpolation)
        assert rule.resize == int(cfg.input_size[1] / cfg.crop_pct)
        assert cfg.crop_mode == "center"
    else:
        assert variant.bundled is not None
        bundled = Path(__file__).parents[2] / "zoo" / "bundled" / variant.bundled
        assert set(load_file(bundled)) == set(built(variant).state_dict())
    assert (rule.size[0], rule.layout) == (rule.size[1], "NCHW")
    assert rule.color == ("L" if name == "lenet5" else "RGB")
    assert rule.scale == 1 / 255
