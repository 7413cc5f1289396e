"""Fixtures of the Keras tests. quick_garbage and keras cost nothing where they are not asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.exporters.graphs", "tests.exporters.keras_support")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras on TensorFlow, as the exporter imports it."""
    pytest.importorskip("tensorflow")
    from exporters.keras import _import_keras

    return _import_keras()


@pytest.fixture(autouse=True)
def quick_garbage() -> Iterator[None]:
    """Keras collects garbage whenever it clears its session: let it not walk through both frameworks each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def network(keras: Any) -> Any:
    """LeNet-5 with weights of its own."""
    from exporters.architectures.lenet5 import build_keras
    from tests.exporters.keras_support import scramble

    keras.backend.clear_session()
    return scramble(build_keras())
