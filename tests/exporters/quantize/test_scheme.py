"""Which tensors share a grid, and what their activations then are."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.quantize.correction import corrections
from exporters.quantize.emit import emit, unrounded
from exporters.quantize.forms import forms
from exporters.quantize.kernels import written
from exporters.quantize.network import Network, split_up
from exporters.quantize.observe import observe
from exporters.quantize.reference import Reference
from exporters.quantize.scheme import Style, candidates, make_scheme, one_grid
from tests.exporters.quantize.networks import Builder, pictures, shuffled, silent, two_heads
from tests.exporters.quantize.test_rewrites import optimized

STYLE = Style()


def joined(left: str, right: str, *, narrow: float = 1.0) -> Any:
    """Two branches, each with an activation or "", side by side in front of a layer. narrow: the left one's range."""
    net = Builder(3)
    net.constant("zero", 0.0)
    net.constant("one", 1.0)
    found = []
    for name, kind in (("left", left), ("right", right)):
        x = net.conv("input", name, 3, 8, 3)
        limits = ["zero", "one"] if kind == "Clip" else []
        found.append(net.add(kind, [x, *limits], f"{name}.act") if kind else x)
    x = net.add("Relu", [net.conv(net.add("Concat", found, "cat", axis=1), "head", 16, 16)], "head.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    model = net.model(net.gemm(x, "logits", 16, 10), 10)
    for item in model.graph.initializer:
        if item.name in ("left.w", "left.b"):
            array = onnx.numpy_helper.to_array(item) * np.float32(narrow)
            item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
    return model


@pytest.mark.parametrize(
    ("left", "right", "alone"),
    [("Relu", "", "left.act"), ("Relu", "Relu", None), ("Clip", "Relu", "left.act"), ("", "", None)],
)
def test_a_concat_takes_no_activation_s_end_away(left: str, right: str, alone: str | None) -> None:
    network = Network(joined(left, right))
    seen, chosen = observe(network, pictures(), silent), candidates(network, STYLE)
    groups = one_grid(network, seen, chosen, STYLE)
    names = {f"left{'.act' if left else ''}", f"right{'.act' if right else ''}", "cat"}
    apart = {name for name in names if groups[name] != groups["cat"]}
    assert apart == ({alone} if alone else set())
    grids = make_scheme(network, seen, chosen, "whole", STYLE).grids
    if left == "Relu":
        assert grids["left.act"].zero_point == 0
    if left == "Clip":
        assert grids["left.act"].scale * 255 <= 1 + 1e-6


@pytest.mark.parametrize("left", ["Relu", "Clip"])
def test_the_activation_is_still_there(left: str) -> None:
    few, proto = pictures(), joined(left, "")
    form = next(forms(proto, observe(Network(proto), few, silent), STYLE))
    scheme = make_scheme(form.network, form.seen, candidates(form.network, STYLE), "whole", STYLE)
    mended = corrections(form.network, scheme, few, silent)
    assert Reference(proto, few, None).distance(written(form.network, scheme, mended)) < 0.08


def test_a_narrow_branch_grows_to_the_grid_that_it_shares() -> None:
    network = Network(joined("Relu", "Relu", narrow=0.01))
    before = observe(network, pictures(), silent)
    form = next(forms(network.proto(), before, STYLE))
    shares = [np.median(seen["left.act"].reach) / seen["cat"].reach.max() for seen in (before, form.seen)]
    assert shares[0] < 0.01 < 0.1 < shares[1]
    assert Reference(network.proto(), pictures(), None).distance(form.network.proto()) < 1e-5


@pytest.mark.parametrize("style", [STYLE, Style(symmetric=True), Style(fused=True)])
def test_every_output_is_given(style: Style) -> None:
    few, proto = pictures(), two_heads()
    form = next(forms(proto, observe(Network(proto), few, silent), style))
    scheme = make_scheme(form.network, form.seen, candidates(form.network, style), "whole", style)
    assert "map" in scheme.grids, "it goes on to a layer on integers"
    made = emit(form.network, scheme, corrections(form.network, scheme, few, silent)).proto
    onnx.checker.check_model(made, full_check=True)
    assert [item.name for item in made.graph.output] == ["logits", "map"]
    assert unrounded("map") in {name for node in made.graph.node for name in node.output}
    whole = Reference(proto, few, None)
    assert whole.outputs == ["logits", "map"]
    assert 0 < whole.distance(made) < 0.1


def test_what_only_moves_stays_on_integers(tmp_path: Path) -> None:
    """From the picture to the last layer: in onnxruntime there is nothing in between that is float."""
    few, proto, wanted = pictures(), shuffled(), Reference(shuffled(), pictures(), None)
    seen = observe(Network(proto), few, silent)
    split_up(proto, {name: item.shape for name, item in seen.items()})
    form = next(forms(proto, seen, STYLE))
    scheme = make_scheme(form.network, form.seen, candidates(form.network, STYLE), "whole", STYLE)
    made = written(form.network, scheme, corrections(form.network, scheme, few, silent))
    assert len({scheme.grids[name] for name in ("stem.act", "turned", "left", "right", "cat")}) == 1
    assert wanted.distance(made) < 0.08
    kinds = Counter(node.op_type for node in optimized(made, tmp_path).graph.node)
    assert (kinds["QuantizeLinear"], kinds["QLinearConv"], kinds["Split"] + kinds["Slice"] > 0) == (1, 3, True)
    assert kinds["DequantizeLinear"] <= 1, "of the logits"
