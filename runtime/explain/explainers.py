"""The explainers, one row each, and the road from a picture to an explanation.

To add one, write a function of one of the four forms below, with its formula, symbols and paper in the docstring, and
add its row to EXPLAINERS; ``zoo explain --method``, its help, the contact sheets and ``--score`` take it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.errors import InvalidInput, UnknownName
from runtime.explain import cams, perturbing, pixels
from runtime.explain.classes import Classes
from runtime.explain.explanation import Explanation
from runtime.explain.layers import find
from runtime.explain.seen import seen
from runtime.explain.subject import Floats, Subject
from runtime.image import ImageSource, preprocess

if TYPE_CHECKING:
    from runtime.model import Model

Needs = Literal["activation and gradient", "activation", "input", "layer"]
"""What the function takes: (A, G), gradients of the layer; the same with G unused; (subject, pixels, index, **options);
(subject, pixels, index, layer, **options)."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """A method. signed: values below 0 speak against the class. rounding: what rounding to integers does to it."""

    function: Callable[..., Floats]
    needs: Needs
    summary: str
    paper: str
    signed: bool = False
    rounding: str | None = None

    @property
    def layered(self) -> bool:
        """Whether it explains a layer, or else the input."""
        return self.needs != "input"


_MISLEADS = (
    "on an int8 file single pixels' gradients are mostly rounding (measured: 0.76 correlation with float32's): "
    "smooth-grad averages that out, and grad-cam is not touched by it"
)
_NOTHING = "the map is 0 everywhere: nothing in this layer speaks for the class; try another class or layer"
_UNTRAINED = "untrained weights: the explanation means nothing"
_BOTH: Needs = "activation and gradient"

EXPLAINERS: dict[str, Explainer] = {
    "grad-cam": Explainer(cams.grad_cam, _BOTH, "maps weighted by their mean gradient", "Selvaraju et al. 2017"),
    "grad-cam++": Explainer(
        cams.grad_cam_plus_plus, _BOTH, "as grad-cam, several objects of a class", "Chattopadhyay et al. 2018"
    ),
    "hires-cam": Explainer(cams.hires_cam, _BOTH, "gradient times activation, place by place", "Draelos, Carin 2020"),
    "layer-cam": Explainer(cams.layer_cam, _BOTH, "fine in early layers too", "Jiang et al. 2021"),
    "xgrad-cam": Explainer(cams.xgrad_cam, _BOTH, "gradient weighted by the activation's share", "Fu et al. 2020"),
    "cam": Explainer(cams.cam, _BOTH, "the linear layer's own weights; needs pooling", "Zhou et al. 2016", signed=True),
    "eigen-cam": Explainer(
        cams.eigen_cam, "activation", "what the layer sees, whatever the class", "Muhammad, Yeasin 2020"
    ),
    "score-cam": Explainer(
        perturbing.score_cam, "layer", "maps weighted by the score behind them; slow", "Wang et al. 2020"
    ),
    "ablation-cam": Explainer(
        perturbing.ablation_cam, "layer", "maps weighted by what their loss costs", "Desai, Ramaswamy 2020"
    ),
    "saliency": Explainer(
        pixels.saliency, "input", "the gradient of single pixels", "Simonyan et al. 2013", rounding=_MISLEADS
    ),
    "gradient-x-input": Explainer(
        pixels.gradient_x_input, "input", "the gradient times the pixel", "Shrikumar et al. 2016",
        signed=True, rounding=_MISLEADS,
    ),
    "smooth-grad": Explainer(pixels.smooth_grad, "input", "saliency, averaged over noise", "Smilkov et al. 2017"),
    "integrated-gradients": Explainer(
        pixels.integrated_gradients, "input", "shares of the score, black to picture", "Sundararajan et al. 2017",
        signed=True,
    ),
    "occlusion": Explainer(
        perturbing.occlusion, "input", "what covering a patch costs", "Zeiler, Fergus 2014", signed=True
    ),
    "rise": Explainer(perturbing.rise, "input", "what random masks show; slow", "Petsiuk et al. 2018"),
}  # fmt: skip


def explain(
    model: Model,
    image: ImageSource,
    method: str = "grad-cam",
    *,
    target: int | str | None = None,
    layer: str | None = None,
    **options: Any,
) -> Explanation:
    """Why the model gives this picture this class; see ``Model.explain``."""
    explainer = EXPLAINERS.get(method)
    if explainer is None:
        raise UnknownName(f"no method {method!r}: one of {', '.join(EXPLAINERS)}")
    if layer is not None and not explainer.layered:
        raise InvalidInput(f"{method} explains the input, not a layer: leave the layer out, or use grad-cam")
    if _inside(model, method, layer) and not options:
        return _from_inside(model, image, target)
    subject = model.subject
    batch = preprocess(image, subject.rule)
    chances = subject.classes.probabilities(subject.scores(batch))[0]
    if not np.isfinite(chances).all():
        raise InvalidInput(f"{model.path}: its scores are not finite: wrong weights, or the wrong preprocessing")
    index = int(chances.argmax()) if target is None else subject.classes.index(target)
    chosen = find(subject.layers, layer).name if explainer.layered else None
    found = _map(explainer, subject, batch, index, chosen, options)
    return Explanation(
        map=found,
        method=method,
        layer=chosen,
        index=index,
        label=subject.classes.label(index),
        score=float(chances[index]),
        picture=seen(batch, subject.rule),
        signed=explainer.signed,
        notes=tuple(_notes(explainer, subject, found, model.trained)),
    )


def _inside(model: Model, method: str, layer: str | None) -> bool:
    """Whether the file itself gives this; of a binary network it explains the second class alone."""
    stored = model.metadata.explain_layer if model.metadata else None
    return model.baked and method == "grad-cam" and layer in (None, stored) and model.task != "binary"


def _from_inside(model: Model, image: ImageSource, target: int | str | None) -> Explanation:
    """Grad-CAM from the file's own output: nothing is rewritten, and ``onnx`` is not needed."""
    batch = preprocess(image, model.rule)
    whole = np.repeat(batch, model.batch_size or 1, axis=0)
    scores = model.run(whole)[:1]
    classes = Classes(model.task, model.label_names, scores.shape[1])
    chances = (classes.probabilities(scores) if model.logits else scores)[0]
    index = int(chances.argmax()) if target is None else classes.index(target)
    found = model.explained(whole, index)[0]
    notes = [_NOTHING] if not found.any() else []
    return Explanation(
        map=found,
        method="grad-cam",
        layer=model.metadata.explain_layer if model.metadata else None,
        index=index,
        label=classes.label(index),
        score=float(chances[index]),
        picture=seen(batch, model.rule),
        notes=(*notes, *([] if model.trained else [_UNTRAINED])),
    )


def _map(
    explainer: Explainer, subject: Subject, batch: Floats, index: int, layer: str | None, options: dict[str, Any]
) -> Floats:
    try:
        if explainer.needs == "input":
            return explainer.function(subject, batch, index, **options)
        assert layer is not None
        if explainer.needs == "layer":
            return explainer.function(subject, batch, index, layer, **options)
        if options:
            raise TypeError(f"unexpected option {next(iter(options))!r}")
        if explainer.needs == "activation":
            activation = subject.activations(batch, [layer])[layer][0]
            return explainer.function(activation, np.zeros_like(activation))
        found = subject.derive(batch, subject.classes.seed([index]), [layer], [layer])
        return explainer.function(found.activations[layer][0], found.gradients[layer][0])
    except TypeError as error:
        if not options:
            raise
        raise InvalidInput(f"{explainer.function.__name__}: {error}") from error


def _notes(explainer: Explainer, subject: Subject, found: Floats, trained: bool) -> list[str]:
    notes = [explainer.rounding] if explainer.rounding and subject.integer else []
    if not found.any():
        notes.append(_NOTHING)
    elif np.ptp(found) == 0:
        notes.append("the map is the same everywhere: it tells no place from another")
    if not trained:
        notes.append(_UNTRAINED)
    return notes
