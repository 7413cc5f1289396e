"""A model file, opened: check, preprocess, run, answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np

from runtime.answering import Answering
from runtime.engines import ENGINES, FULL, NO_OPTIONS, Runner, engine_for, open_runner
from runtime.errors import InferenceFailed, InvalidArtifact, InvalidInput
from runtime.explain.explainable import OUTPUT, SWITCH, Explainable
from runtime.forked import cannot, guard, release
from runtime.image import ImageSource, preprocess, preprocess_fast
from runtime.memory import give_back
from runtime.metadata import Labels, Metadata, Preprocess, Task

if TYPE_CHECKING:
    import numpy.typing as npt

Decode: TypeAlias = Literal["fast", "exact"]
"""exact: every pixel of the picture. fast: a large JPEG is made smaller while it is decoded, see ``runtime.jpeg``; one
whose two best classes are then nearly level is decoded again, exactly (``runtime.tasks.undecided``)."""


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    decode: Decode = "fast",
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
) -> Model:
    """Open a model file.

    device: "cpu", which is the default, or "cuda"; one that cannot be used is an error, never replaced by another.
    engine: a row of ``runtime.engines.ENGINES``, the device's first by default; "auto" takes what `zoo tune` has found
        to be the fastest here, and finds it now where that has not been done.
    precision: what float32 operators may be computed in, of those that the engine has: float32 by default, with "auto"
        whatever answers as the record allows. A file's int8 stays int8.
    threads: CPU threads of one run; None takes the cores this process may really use.
    decode: "exact" where every grey level counts: a JPEG of twice the network's size or more is otherwise made smaller
        while it is decoded, and read again exactly only where the answer hangs by a hair.
    preprocess, labels: for files that carry no edgezoo metadata.

    Raises ArtifactNotFound, InvalidArtifact, DeviceUnavailable or MissingDependency.
    """
    if engine == "auto":
        from runtime.tuning.record import opening

        path, chosen = opening(path, device=device, precision=precision, threads=threads, preprocess=preprocess)
    else:
        chosen = {"device": device, "engine": engine, "precision": precision or FULL, "threads": threads}
    return Model(path, **chosen, decode=decode, preprocess=preprocess, labels=labels)


class Model(Answering, Explainable):
    """One opened file. Safe to use from several threads; close it, or use it in ``with``.

    metadata: what the file says of itself, None for a foreign ONNX file.
    batch_size: the number of pictures per run the file was frozen to, None when it is free.
    engine, device, precision: what was opened. provider: what really runs the graph, in the engine's own words.
    baked: whether the file explains itself, in an output of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str | None = None,
        engine: str | None = None,
        precision: str = FULL,
        threads: int | None = None,
        options: Mapping[str, str] = NO_OPTIONS,
        prepared: bytes | None = None,
        decode: Decode = "fast",
        preprocess: Preprocess | None = None,
        labels: Labels | None = None,
    ) -> None:
        super().__init__()
        if decode not in get_args(Decode):
            raise InvalidInput(f"decode {decode!r}: one of {', '.join(get_args(Decode))}")
        self.path = Path(path)
        self.engine = engine_for(device, engine)
        self.device, self.precision, self.threads, self.decode = ENGINES[self.engine].device, precision, threads, decode
        self._open = partial(
            open_runner, path, engine=self.engine, precision=precision, threads=threads, options=options
        )
        runner = self._open(prepared=prepared)
        self._runner: Runner | None = runner
        self._run: Callable[[Sequence[str], Mapping[str, Any]], list[npt.NDArray[Any]]] = runner.run
        self.provider = runner.provider
        self.metadata = Metadata.from_props(runner.props, where=str(self.path))
        self._rule = preprocess or (self.metadata.preprocess if self.metadata else None)
        self._labels = labels or (self.metadata.labels if self.metadata else None)
        if len(runner.inputs) != 1:
            raise InvalidArtifact(f"{self.path}: has {len(runner.inputs)} inputs, edgezoo runs models of one")
        self._input = runner.inputs[0]
        # What a file with an explanation of its own gives only when asked; see runtime.explain.baked.
        self.baked = SWITCH in runner.optional
        names = [output.name for output in runner.outputs]
        self._output_names = [name for name in names if not (self.baked and name == OUTPUT)]
        first = self._input.shape[0] if self._input.shape else None
        self.batch_size: int | None = first if isinstance(first, int) else None
        self._form = runner.outputs[0].shape[1:]
        self._check(list(runner.outputs[0].shape))
        guard(self, Model._reopen, "_run")

    def _reopen(self) -> Callable[..., Any]:
        """In a forked child, where the threads of the engine are gone: the file once more.

        Raises InferenceFailed where the device does not come along.
        """
        if ENGINES[self.engine].lost_in_fork:
            raise cannot(str(self.path))
        self._runner = self._open()
        return self._runner.run

    def _check(self, scores: list[int | str | None]) -> None:
        """The graph, whose first output has the shape ``scores``, and what the file says of it must agree."""
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
            if (str(self._input.dtype) == "uint8") != (self._rule.input == "uint8"):
                raise InvalidArtifact(
                    f"{self.path}: takes {self._input.dtype}, the preprocessing gives {self._rule.input}: leave it out "
                    "where the file has its own, or `zoo import` the file"
                )
        axis = 1 if mapped else -1
        if self._labels is None or not -len(scores) <= axis < len(scores) or not isinstance(scores[axis], int):
            return
        labels = len(self._labels.names)
        allowed = {"binary": {1}, "score-map": {labels, 1} if labels == 2 else {labels}}.get(self.task, {labels})
        if scores[axis] not in allowed or (self.task == "binary" and labels != 2):
            raise InvalidArtifact(f"{self.path}: {scores[axis]} outputs but {labels} labels for {self.task}")

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

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Preprocessed pictures in, the first output as it is: (N, C, H, W) float32 -> (N, classes) float32.

        Of a file with a uint8 input, pixels in the layout of ``rule``.
        Raises InvalidInput for an array that does not fit the input.
        """
        if self._hooks:
            return self._run_hooked(batch)
        try:
            return self._run(self._output_names[:1], {self._input.name: batch})[0]
        except Exception as error:
            raise self._why(batch, error) from error

    def run_outputs(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """These outputs of the file, all its inputs given by name. Raises InvalidInput and InferenceFailed."""
        try:
            return self._run(names, feed)
        except Exception as error:
            raise self._why(feed.get(self._input.name), error) from error

    def run_all(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """As ``run``, every output by its name, in the file's order."""
        try:
            outputs = self._run(self._output_names, {self._input.name: batch})
        except Exception as error:
            raise self._why(batch, error) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def _why(self, batch: Any, error: Exception) -> Exception:
        """Why a run failed: checked only then, so that a good run pays nothing for it."""
        if self._runner is None:
            return InvalidInput(f"{self.path}: the model is closed")
        shape = [size if isinstance(size, int) else "any" for size in self._input.shape]
        fits = (
            isinstance(batch, np.ndarray)
            and batch.dtype == self._input.dtype
            and batch.ndim == len(shape)
            and all(want in ("any", have) for want, have in zip(shape, batch.shape, strict=True))
        )
        if fits:
            return InferenceFailed(f"{self.path}: {str(error).splitlines()[0]}")
        given = f"{batch.dtype} {list(batch.shape)}" if isinstance(batch, np.ndarray) else type(batch).__name__
        return InvalidInput(f"{self.path}: takes {self._input.dtype} {shape}, not {given}; predict() takes pictures")

    def prepare(self, image: ImageSource) -> npt.NDArray[Any]:
        """What ``run`` takes for one picture. Raises InvalidImage."""
        return self.prepare_as(self.decode, image)[0]

    def prepare_as(self, decode: Decode, image: ImageSource) -> tuple[npt.NDArray[Any], bool]:
        """The same, decoded so, and whether an exact decoding would give other grey levels. Raises InvalidImage."""
        return preprocess_fast(image, self.rule) if decode == "fast" else (preprocess(image, self.rule), False)

    @property
    def logits(self) -> bool:
        """Whether the scores have yet to go through softmax or sigmoid."""
        return self.metadata is None or self.metadata.scores == "logits"

    def close(self) -> None:
        """Give the memory back. Running a closed model is an error."""
        runner, self._runner, self._subject, self._hooks = self._runner, None, None, []
        self._run = _closed
        release(self)
        if runner is not None:
            runner.close()
        del runner
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


def _closed(names: Sequence[str], feed: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
    raise ValueError("closed")
