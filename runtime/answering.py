"""The part of ``Model`` that answers: one picture, many, or one without a loop's waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, cast, overload

import numpy as np

from runtime import throughput
from runtime.errors import InvalidInput, UserError
from runtime.image import ImageSource, describe_source, is_source, preprocess_whole
from runtime.metadata import Task
from runtime.tasks import ANSWERS, METHODS
from runtime.tasks.classification import Classification
from runtime.tasks.score_map import ScoreMap, whole_windows
from runtime.throughput import Errors

if TYPE_CHECKING:
    import numpy.typing as npt

    from runtime.model import Model


class Answering:
    """Answers about pictures, by the task of the file."""

    def predict(self, image: ImageSource, *, top: int = 5) -> Classification:
        """Classify one picture: a path, bytes, file object, PIL image or uint8 array (H, W[, C]).

        Raises InvalidImage, or InvalidInput where the output is not of classes: the message says what to use.
        """
        return next(self.predict_many([image], top=top, workers=0))

    async def apredict(self, image: ImageSource, *, top: int = 5) -> Classification:
        """As ``predict``, in a thread of asyncio's: the loop goes on meanwhile.

        Many coroutines may share a model. One that is cancelled ends at once; what its thread still finds is dropped.
        """
        import asyncio  # whoever awaits has it; 30 ms for everyone else

        return await asyncio.to_thread(self.predict, image, top=top)

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        top: int = 5,
        batch_size: int | None = None,
        workers: int | None = None,
        errors: Literal["raise"] = "raise",
    ) -> Iterator[Classification]: ...

    @overload
    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        top: int = 5,
        batch_size: int | None = None,
        workers: int | None = None,
        errors: Errors,
    ) -> Iterator[Classification | UserError]: ...

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        top: int = 5,
        batch_size: int | None = None,
        workers: int | None = None,
        errors: Errors = "raise",
    ) -> Iterator[Classification | UserError]:
        """Classify pictures as they come, in order; ``images`` may be endless.

        Several are decoded and run at the same time. They are read from ``images`` in the thread that takes the
        answers, at most two batches for each worker ahead of them.
        batch_size: pictures of one run; by default 1 on the CPU, where more win nothing unless they are quick, else 8.
            A file frozen to one batch size is run at that size, the last batch filled up.
        workers: threads that decode and run, by default one more than cores where pictures take a millisecond or
            more; with 0 no thread is started and one batch is read at a time.
        errors: "return" gives the UserError of a picture that cannot be read in place of its answer.

        Raises what ``predict`` raises, after the answers for the pictures before.
        """
        model = cast("Model", self)
        answer = ANSWERS.get(model.task)
        if answer is None:
            raise InvalidInput(f"{model.path}: {self._instead()}")

        def classify(scores: npt.NDArray[np.float32]) -> list[Classification]:
            return answer(scores, model.labels, top=top, logits=model.logits, trained=model.trained)

        return throughput.predict_many(model, classify, images, batch_size=batch_size, workers=workers, errors=errors)

    def scores_many(
        self, images: Iterable[ImageSource], *, batch_size: int | None = None, workers: int | None = None
    ) -> Iterator[npt.NDArray[np.float32]]:
        """The raw scores of pictures as they come: one (n, classes) array per batch; otherwise as ``predict_many``."""
        return throughput.scores_many(cast("Model", self), images, batch_size=batch_size, workers=workers)

    def features(
        self, images: ImageSource | Iterable[ImageSource], *, batch_size: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Embeddings of one picture or of several, in order: (N, dimensions) float32.

        Raises InvalidImage, or InvalidInput where the file does not give features.
        """
        self._require("features")
        pictures = [cast("ImageSource", images)] if is_source(images) else cast("Iterable[ImageSource]", images)
        rows = list(self.scores_many(pictures, batch_size=batch_size))
        none = np.empty((0, *cast("list[int]", cast("Model", self)._form)), np.float32)
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
        model = cast("Model", self)
        assert model.metadata is not None and model.metadata.window is not None
        batch = preprocess_whole(image, model.rule, shorter=shorter)
        height, width = batch.shape[2:]
        whole = whole_windows(batch, model.metadata.window, name=describe_source(image))
        scores = model.run(np.repeat(whole, model.batch_size or 1, axis=0))[0]
        return ScoreMap(
            scores, model.labels, model.metadata.window, (height, width), logits=model.logits, trained=model.trained
        )

    def _require(self, task: Task) -> None:
        model = cast("Model", self)
        if model.task != task:
            raise InvalidInput(f"{model.path}: {self._instead()}")

    def _instead(self) -> str:
        task = cast("Model", self).task
        method = "predict()" if task in ANSWERS else METHODS.get(task, "run()")
        return f"gives {'its own outputs' if task == 'other' else task}: use {method}"
