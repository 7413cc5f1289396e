"""A model file, opened: check, preprocess, run, answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from runtime.engines import open_session
from runtime.errors import InferenceFailed, InvalidArtifact, InvalidInput
from runtime.explain.explainable import OUTPUT, SWITCH, Explainable
from runtime.image import ImageSource, describe_source, is_source, preprocess, preprocess_whole
from runtime.memory import give_back
from runtime.metadata import Labels, Metadata, Preprocess, Task
from runtime.tasks import ANSWERS, METHODS
from runtime.tasks.classification import Classification
from runtime.tasks.score_map import ScoreMap, whole_windows


class _Input(NamedTuple):
    name: str
    shape: list[int | str | None]


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
) -> Model:
    """Open a model file.

    device: "cpu" or "cuda"; a device that cannot be used is an error, never replaced by another.
    threads: CPU threads of one run; None takes the cores this process may really use.
    preprocess, labels: for files that carry no edgezoo metadata.

    Raises ArtifactNotFound, InvalidArtifact, DeviceUnavailable or MissingDependency.
    """
    return Model(path, device=device, threads=threads, preprocess=preprocess, labels=labels)


class Model(Explainable):
    """One opened file. Safe to use from several threads; close it, or use it in ``with``.

    metadata: what the file says of itself, None for a foreign ONNX file.
    batch_size: the number of pictures per run the file was frozen to, None when it is free.
    provider: the onnxruntime provider that really runs the graph.
    baked: whether the file explains itself, in an output of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        threads: int | None = None,
        preprocess: Preprocess | None = None,
        labels: Labels | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.device, self.threads = device, threads
        self._session = open_session(path, device=device, threads=threads)
        self.provider: str = self._session.get_providers()[0]
        try:
            props = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InvalidArtifact(f"{path}: damaged metadata (not UTF-8): get a whole copy") from error
        self.metadata = Metadata.from_props(props, where=str(self.path))
        self._rule = preprocess or (self.metadata.preprocess if self.metadata else None)
        self._labels = labels or (self.metadata.labels if self.metadata else None)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise InvalidArtifact(f"{self.path}: has {len(inputs)} inputs, edgezoo runs models of one")
        # onnxruntime's own object would keep the session, and its memory, after close().
        self._input = _Input(inputs[0].name, inputs[0].shape)
        # What a file with an explanation of its own gives only when asked; see runtime.explain.baked.
        self.baked = any(item.name == SWITCH for item in self._session.get_overridable_initializers())
        names = [output.name for output in self._session.get_outputs()]
        self._output_names = [name for name in names if not (self.baked and name == OUTPUT)]
        first = self._input.shape[0] if self._input.shape else None
        self.batch_size: int | None = first if isinstance(first, int) else None
        self._check()

    def _check(self) -> None:
        """The graph and what the file says of it must agree."""
        shape, mapped = list(self._input.shape), self.task == "score-map"
        if self._rule is not None:
            (height, width), channels = self._rule.size, self._rule.channels
            planes = [channels, height, width] if self._rule.layout == "NCHW" else [height, width, channels]
            # A map is of pictures larger than the rule's own size.
            wanted = [channels, "any", "any"] if mapped and self._rule.layout == "NCHW" else planes
            fits = len(shape) == 4 and all(
                not isinstance(is_, int) or is_ == said for is_, said in zip(shape[1:], wanted, strict=True)
            )
            if not fits:
                raise InvalidArtifact(f"{self.path}: input {shape} does not fit its preprocessing {wanted}")
        shape = list(self._session.get_outputs()[0].shape)
        axis = 1 if mapped else -1
        if self._labels is None or not -len(shape) <= axis < len(shape) or not isinstance(shape[axis], int):
            return
        labels = len(self._labels.names)
        allowed = {"binary": {1}, "score-map": {labels, 1} if labels == 2 else {labels}}.get(self.task, {labels})
        if shape[axis] not in allowed or (self.task == "binary" and labels != 2):
            raise InvalidArtifact(f"{self.path}: {shape[axis]} outputs but {labels} labels for {self.task}")

    @property
    def task(self) -> Task:
        """What the output holds, as ``runtime.metadata`` lists it; "classification" for a foreign file."""
        return self.metadata.task if self.metadata else "classification"

    @property
    def rule(self) -> Preprocess:
        """The preprocessing in force.

        Raises InvalidInput for a model that takes no pictures, InvalidArtifact for a foreign file opened without one.
        """
        if self._rule is None and self.metadata is not None:
            raise InvalidInput(f"{self.path}: takes arrays, not pictures: use run()")
        if self._rule is None:
            raise InvalidArtifact(f"{self.path}: carries no edgezoo metadata: open it with preprocess=Preprocess(...)")
        return self._rule

    @property
    def labels(self) -> Labels:
        """The class names in force.

        Raises InvalidInput for a model whose output is not of classes, InvalidArtifact for a foreign file opened
        without them.
        """
        if self._labels is None and self.metadata is not None:
            raise InvalidInput(f"{self.path}: {self._instead()}")
        if self._labels is None:
            raise InvalidArtifact(f"{self.path}: carries no labels: open it with labels=Labels(...)")
        return self._labels

    @property
    def input_name(self) -> str:
        """The graph's name of the input."""
        return self._input.name

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The class names in force; None where there are none."""
        return self._labels.names if self._labels is not None else None

    @property
    def trained(self) -> bool:
        """False when the file says that its weights are random."""
        return self.metadata.trained if self.metadata else True

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Preprocessed pictures in, the first output as it is: (N, C, H, W) float32 -> (N, classes) float32.

        Raises InvalidInput for an array that does not fit the input.
        """
        if self._hooks:
            return self._run_hooked(batch)
        try:
            return self._session.run(self._output_names[:1], {self._input.name: batch})[0]  # type: ignore[no-any-return]
        except Exception as error:
            raise self._why(batch, error) from error

    def run_outputs(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """These outputs of the file, all its inputs given by name. Raises InvalidInput and InferenceFailed."""
        try:
            return self._session.run(names, feed)  # type: ignore[no-any-return]
        except Exception as error:
            raise self._why(feed.get(self._input.name), error) from error

    def run_all(self, batch: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """As ``run``, every output by its name, in the file's order."""
        try:
            outputs = self._session.run(self._output_names, {self._input.name: batch})
        except Exception as error:
            raise self._why(batch, error) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def _why(self, batch: Any, error: Exception) -> Exception:
        """Why a run failed: checked only then, so that a good run pays nothing for it."""
        if self._session is None:
            return InvalidInput(f"{self.path}: the model is closed")
        shape = [size if isinstance(size, int) else "any" for size in self._input.shape]
        fits = (
            isinstance(batch, np.ndarray)
            and batch.dtype == np.float32
            and batch.ndim == len(shape)
            and all(want in ("any", have) for want, have in zip(shape, batch.shape, strict=True))
        )
        if fits:
            return InferenceFailed(f"{self.path}: {str(error).splitlines()[0]}")
        given = f"{batch.dtype} {list(batch.shape)}" if isinstance(batch, np.ndarray) else type(batch).__name__
        return InvalidInput(f"{self.path}: takes float32 {shape}, not {given}; predict() takes pictures")

    def predict(self, image: ImageSource, *, top: int = 5) -> Classification:
        """Classify one picture: a path, bytes, file object, PIL image or uint8 array (H, W[, C]).

        Raises InvalidImage, or InvalidInput where the output is not of classes: the message says what to use.
        """
        return next(self.predict_many([image], top=top))

    def predict_many(
        self, images: Iterable[ImageSource], *, top: int = 5, batch_size: int = 8
    ) -> Iterator[Classification]:
        """Classify pictures as they come, ``batch_size`` at a time, in order.

        A file frozen to one batch size is run at that size, the last batch filled up.
        """
        answer = ANSWERS.get(self.task)
        if answer is None:
            raise InvalidInput(f"{self.path}: {self._instead()}")
        for scores in self.scores_many(images, batch_size=batch_size):
            yield from answer(scores, self.labels, top=top, logits=self.logits, trained=self.trained)

    def features(self, images: ImageSource | Iterable[ImageSource], *, batch_size: int = 8) -> npt.NDArray[np.float32]:
        """Embeddings of one picture or of several, in order: (N, dimensions) float32.

        Raises InvalidImage, or InvalidInput where the file does not give features.
        """
        self._require("features")
        pictures = [cast("ImageSource", images)] if is_source(images) else cast("Iterable[ImageSource]", images)
        rows = list(self.scores_many(pictures, batch_size=batch_size))
        none = np.empty((0, *self._session.get_outputs()[0].shape[1:]), np.float32)
        return np.concatenate(rows) if rows else none

    def score_map(self, image: ImageSource, *, shorter: int | None = None) -> ScoreMap:
        """The classifier's answer at every window of one picture, which is not cropped.

        shorter: the length in pixels that the picture's shorter side is resized to, the aspect ratio kept; None
            takes the picture at its own size. The network knows things at the size they have in pictures of its
            own preprocessing: a window is about what ``predict`` would look at.

        Rows and columns beyond the last whole window are not used. Raises InvalidImage, or InvalidInput for a picture
        smaller than a window and where the file does not give a map.
        """
        self._require("score-map")
        assert self.metadata is not None and self.metadata.window is not None
        batch = preprocess_whole(image, self.rule, shorter=shorter)
        height, width = batch.shape[2:]
        whole = whole_windows(batch, self.metadata.window, name=describe_source(image))
        scores = self.run(np.repeat(whole, self.batch_size or 1, axis=0))[0]
        return ScoreMap(
            scores, self.labels, self.metadata.window, (height, width), logits=self.logits, trained=self.trained
        )

    def _require(self, task: Task) -> None:
        if self.task != task:
            raise InvalidInput(f"{self.path}: {self._instead()}")

    def _instead(self) -> str:
        method = "predict()" if self.task in ANSWERS else METHODS.get(self.task, "run()")
        return f"gives {'its own outputs' if self.task == 'other' else self.task}: use {method}"

    @property
    def logits(self) -> bool:
        """Whether the scores have yet to go through softmax or sigmoid."""
        return self.metadata is None or self.metadata.scores == "logits"

    def scores_many(self, images: Iterable[ImageSource], *, batch_size: int = 8) -> Iterator[npt.NDArray[np.float32]]:
        """The raw scores of pictures as they come: one (n, classes) array per batch."""
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be at least 1, not {batch_size}")
        rule, size = self.rule, self.batch_size or batch_size
        pending = iter(images)
        while chunk := list(islice(pending, size)):
            batch = np.concatenate([preprocess(image, rule) for image in chunk])
            if self.batch_size and len(chunk) < size:
                batch = np.concatenate([batch, np.repeat(batch[-1:], size - len(chunk), axis=0)])
            yield self.run(batch)[: len(chunk)]

    def close(self) -> None:
        """Give the memory back. Running a closed model is an error."""
        self._session = self._subject = None
        self._hooks = []
        give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.metadata.name if self.metadata else self.path.name
        return f"<Model {name} {self._input.shape} on {self.provider}>"
