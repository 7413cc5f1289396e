"""A file opened for explanations: its scores, activations and gradients, from sessions that are made once each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.engines import open_session
from runtime.errors import InvalidInput, MissingDependency
from runtime.explain.baked import unbaked
from runtime.explain.classes import Classes
from runtime.explain.layers import LayerInfo, layers
from runtime.gradients import NoGradient
from runtime.gradients.append import add_gradients, gradient_name, readable
from runtime.gradients.builder import FLOATS
from runtime.gradients.graph import Graph, reads
from runtime.gradients.seeds import ByWeights
from runtime.pixel_input import find, known, without_pixels

if TYPE_CHECKING:
    from runtime.metadata import Preprocess
    from runtime.model import Model

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_SEED = "edgezoo::seed"
_CLASSES = ("classification", "binary", "multilabel")
_SQUASHING = ("Softmax", "Sigmoid")


@dataclass(frozen=True, slots=True)
class Derived:
    """scores: (n, classes), before softmax or sigmoid. gradients, activations: by tensor, (n, ...)."""

    scores: Floats
    gradients: dict[str, Floats]
    activations: dict[str, Floats]


class Subject:
    """What the explainers ask of a model. Safe to use from several threads.

    Of a file that takes pixels it is the network behind them: gradients, noise and patches are of normalised pictures.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        whole = _load(model)
        self._pixels = find(whole)
        self.proto = without_pixels(whole)
        self.graph = Graph(self.proto)
        self.input = self._pixels.input if self._pixels else model.input_name
        self.output = self._scores_tensor()
        self.integer = any(node.op_type in ("DequantizeLinear", "QLinearConv") for node in self.proto.graph.node)
        self._dtype = FLOATS.get(self.graph.dtype(self.output), np.float32)
        stored = model.metadata.explain_layer if model.metadata else None
        self.layers: list[LayerInfo] = layers(self.graph, stored)
        self._sessions: dict[Any, Any] = {}
        self._lock = threading.Lock()

    @property
    def rule(self) -> Preprocess:
        """The preprocessing in force, to float32; raises what ``Model.rule`` and ``PixelInput.rule`` do."""
        rule, path = self.model.rule, self.model.path
        return rule if rule.input == "float32" else known(self._pixels, path).rule(rule, path)

    def normalised(self, batch: Array) -> Array:
        """What the network gets of a batch that the file takes. Raises InvalidInput for one that it does not."""
        if self._pixels is None:
            return batch
        if batch.dtype != np.uint8 or batch.ndim != 4:
            raise InvalidInput(f"{self.model.path}: takes uint8 pictures, not {batch.dtype} {list(batch.shape)}")
        return self._pixels.floats(batch)

    @property
    def classes(self) -> Classes:
        """The classes in force. Raises InvalidInput for a network whose answer is not of classes."""
        model = self.model
        if model.task not in _CLASSES:
            raise InvalidInput(f"{model.path}: gives {model.task}: explanations are of classes; see activations()")
        return Classes(model.task, model.label_names, int(np.prod(self._form)))

    @cached_property
    def _form(self) -> tuple[int, ...]:
        """Of one picture's scores."""
        form = self.graph.shape(self.output)[1:]
        known = tuple(extent for extent in form if isinstance(extent, int))
        if not form or len(known) != len(form):
            raise InvalidInput(
                f"{self.model.path}: the number of its classes is not fixed: give its input a fixed size"
            )
        return known

    def _scores_tensor(self) -> str:
        """The classes' scores before the softmax or sigmoid at the end: a probability near 1 has no gradient left."""
        name = str(self.graph.outputs[0])
        node = self.graph.maker.get(name)
        return str(node.input[0]) if node is not None and node.op_type in _SQUASHING else name

    def scores(self, pixels: Floats) -> Floats:
        """(n, ...) preprocessed pictures to (n, scores), before softmax or sigmoid."""
        return self._flat(self._batched(self._session(("scores",), self._outputs([self.output])), {self.input: pixels}))

    def activations(self, pixels: Floats, names: Sequence[str]) -> dict[str, Floats]:
        """Tensors by name, (n, ...) float32. Raises UnknownName."""
        inner = [readable(self.proto, name) for name in names]
        found = self._batched(self._session(("read", *inner), self._outputs(inner)), {self.input: pixels})
        return {name: value.astype(np.float32) for name, value in zip(names, found, strict=True)}

    def derive(self, pixels: Floats, seed: Floats, wrt: Sequence[str], keep: Sequence[str] = ()) -> Derived:
        """The gradient of sum(seed * scores), and the tensors in ``keep``; seed: (n, scores).

        Raises NoGradient where it is zero everywhere: then it says nothing, and the map would be empty without a word.
        """
        sources, kept = [readable(self.proto, name) for name in wrt], [readable(self.proto, name) for name in keep]

        def build() -> Any:
            made = add_gradients(
                self.proto, sources, of=self.output, seed=ByWeights(_SEED), keep=[self.output, *kept], plain=False
            )
            names = [self.output, *map(gradient_name, sources), *kept]
            return made, names

        session = self._session(("derive", *sources, "keep", *kept), build)
        shaped = seed.reshape(len(seed), *self._form).astype(self._dtype)
        scores, *values = self._batched(session, {self.input: pixels, _SEED: shaped})
        gradients = {name: value.astype(np.float32) for name, value in zip(wrt, values, strict=False)}
        for name, value in gradients.items():
            _require_some(value, name)
        floats = {name: value.astype(np.float32) for name, value in zip(keep, values[len(wrt) :], strict=True)}
        return Derived(self._flat([scores]), gradients, floats)

    def derive_layer(self, pixels: Floats, layer: str, seed: Floats) -> Floats:
        """The gradient of sum(seed * layer's activation) with respect to the input; seed: (n, ...) like the layer's.

        Raises NoGradient where it is zero everywhere.
        """
        inner = readable(self.proto, layer)

        def build() -> Any:
            made = add_gradients(self.proto, [self.input], of=inner, seed=ByWeights(_SEED), plain=False)
            return made, [gradient_name(self.input)]

        feed = {self.input: pixels, _SEED: seed.astype(FLOATS.get(self.graph.dtype(inner), np.float32))}
        slope = self._batched(self._session(("derive layer", inner), build), feed)[0].astype(np.float32)
        _require_some(slope, self.input)
        return slope

    def from_layer(self, pixels: Floats, layer: str, values: Floats) -> Floats:
        """The scores with a layer's activation replaced by ``values``, (n, ...)."""
        inner = readable(self.proto, layer)
        session = self._session(
            ("from", inner), lambda: (_giving(self.proto, [self.output], given=inner), [self.output])
        )
        return self._flat(self._batched(session, {self.input: pixels, inner: values}))

    @staticmethod
    def _flat(found: list[Floats]) -> Floats:
        return found[0].reshape(len(found[0]), -1).astype(np.float32)

    def _outputs(self, names: list[str]) -> Callable[[], Any]:
        return lambda: (_giving(self.proto, names), names)

    def _session(self, key: Any, build: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._sessions:
                proto, names = build()
                session = open_session(proto.SerializeToString(), device=self.model.device, threads=self.model.threads)
                self._sessions[key] = session, names
            return self._sessions[key]

    def _batched(self, session: Any, feed: dict[str, Floats]) -> list[Floats]:
        """Run at the file's own batch size where it has one, the last batch filled up."""
        runner, names = session
        given = {value.name for value in runner.get_inputs()}
        feed = {name: value for name, value in feed.items() if name in given}
        size, count = self.model.batch_size, len(next(iter(feed.values())))
        if size is None:
            return list(runner.run(names, feed))
        parts = []
        for start in range(0, count, size):
            part = {name: _filled(value[start : start + size], size) for name, value in feed.items()}
            parts.append(runner.run(names, part))
        return [np.concatenate(values)[:count] for values in zip(*parts, strict=True)]


def _filled(values: Floats, size: int) -> Floats:
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


def _require_some(gradient: Floats, name: str) -> None:
    if not np.isfinite(gradient).all():
        raise NoGradient(f"the gradient at {name!r} is not finite: wrong weights, or the wrong preprocessing")
    if not gradient.any():
        raise NoGradient(
            f"the gradient at {name!r} is zero everywhere: what leads there is saturated or cut off (by a ReLU, a Clip "
            "or a rounding); try another layer or class, or occlusion"
        )


def _load(model: Model) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("explanations rewrite the graph: pip install onnx") from error
    proto = onnx.load(model.path)
    return unbaked(proto) if model.baked else proto


def _giving(proto: Any, names: Sequence[str], *, given: str | None = None) -> Any:
    """The model giving these tensors alone, with a tensor ``given`` as an input instead of computed.

    Only what they need is kept: onnxruntime would run the rest too.
    """
    import onnx

    def value(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, graph.dtype(name), list(graph.shape(name)))

    graph, made = Graph(proto), onnx.ModelProto()
    made.CopyFrom(proto)
    needed, kept = set(names), []
    for node in reversed(proto.graph.node):
        if needed & (set(node.output) - {given}):
            kept.append(node)
            needed.update(reads(node))
    del made.graph.node[:], made.graph.input[:], made.graph.output[:]
    made.graph.node.extend(reversed(kept))
    made.graph.input.extend(one for one in proto.graph.input if one.name in needed)
    made.graph.input.extend([value(given)] if given else [])
    made.graph.output.extend(value(name) for name in names)
    return made
