"""The part of ``Model`` that explains. Nothing is loaded for it before it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from runtime.errors import InvalidInput
from runtime.forked import never_destroy, on_fork

if TYPE_CHECKING:
    from runtime.explain.explanation import Explanation
    from runtime.explain.layers import LayerInfo
    from runtime.explain.subject import Subject
    from runtime.image import ImageSource
    from runtime.model import Model

SWITCH, CLASS, OUTPUT = "explain", "class_index", "explanation"
"""Of a file with Grad-CAM inside, ``runtime.explain.baked``: its optional inputs, and its output."""

Activation = np.ndarray[Any, np.dtype[np.float32]]
Hook = Callable[[str, Activation], object]


class Explainable:
    """Explanations of a model's answers, its activations, and functions that are told of them."""

    def __init__(self) -> None:
        self._subject: Subject | None = None
        self._lock = threading.Lock()
        self._hooks: list[tuple[str, Hook]] = []
        on_fork(self, Explainable._forget)

    def _forget(self) -> None:
        """In a forked child: the sessions of explanations are made anew, by whoever asks for one."""
        never_destroy(self._subject)
        self._subject, self._lock = None, threading.Lock()

    @property
    def subject(self) -> Subject:
        """The file as the explainers see it, read when it is first needed."""
        with self._lock:
            if self._subject is None:
                from runtime.explain.subject import Subject

                self._subject = Subject(cast("Model", self))
            return self._subject

    def explain(
        self,
        image: ImageSource,
        method: str = "grad-cam",
        *,
        target: int | str | None = None,
        layer: str | None = None,
        **options: Any,
    ) -> Explanation:
        """Why the model gives this picture this class.

        method: a key of ``runtime.explain.EXPLAINERS``. target: the class, by index or label; the most probable one by
            default. layer: a name of ``layers()``, for the methods that explain a layer; the last convolutional map by
            default. options: of the method, as its docstring names them.

        Raises UnknownName for a method, class or layer that is not there, InvalidInput where the method does not fit
        the network, NoGradient where the gradient is zero everywhere, UnsupportedOperator for an operator without a
        rule, and what ``predict`` raises.
        """
        from runtime.explain.explainers import explain

        return explain(cast("Model", self), image, method, target=target, layer=layer, **options)

    def explained(self, batch: Activation, index: int = -1) -> Activation:
        """Grad-CAM from the file's own output, (n, rows, columns), of a class or, below 0, of each picture's answer.

        Raises InvalidInput for a file without one (`zoo stamp --explain` makes one).
        """
        model = cast("Model", self)
        if not model.baked:
            raise InvalidInput(f"{model.path}: has no explanation inside: make one with `zoo stamp --explain`")
        feed = {model.input_name: batch, SWITCH: np.array(True), CLASS: np.array([index], np.int64)}
        found: Activation = model.run_outputs([OUTPUT], feed)[0]
        return found.astype(np.float32)

    def layers(self) -> list[LayerInfo]:
        """What ``explain`` and ``activations`` take as a layer, in the order of the network."""
        return list(self.subject.layers)

    def activations(self, image: ImageSource, layers: str | Sequence[str]) -> dict[str, Activation]:
        """What these tensors hold for one picture: {name: (channels, rows, columns)}, or of any other shape.

        Raises UnknownName, and what ``predict`` raises.
        """
        from runtime.image import preprocess

        names = [layers] if isinstance(layers, str) else list(layers)
        found = self.subject.activations(preprocess(image, self.subject.rule), names)
        return {name: values[0] for name, values in found.items()}

    def on_activation(self, layer: str, function: Hook) -> Callable[[], None]:
        """Call ``function(layer, activation)`` with each run from now on; the function given back ends that.

        activation: (n, channels, rows, columns) of the whole batch. The runs take place in a session that gives the
        layer too; what the function raises is raised by the run. Raises UnknownName.
        """
        from runtime.gradients.append import readable

        readable(self.subject.proto, layer)  # is it there?
        hook = layer, function
        with self._lock:
            self._hooks = [*self._hooks, hook]

        def remove() -> None:
            with self._lock:
                self._hooks = [one for one in self._hooks if one is not hook]

        return remove

    def _run_hooked(self, batch: Activation) -> Activation:
        """One run that tells the hooks what they asked for."""
        hooks = self._hooks
        subject = self.subject
        names = list(dict.fromkeys(layer for layer, _ in hooks))
        answer = str(subject.graph.outputs[0])
        found = subject.activations(subject.normalised(batch), [answer, *names])
        for layer, function in hooks:
            function(layer, found[layer])
        return found[answer]
