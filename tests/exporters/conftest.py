"""Fixtures of the Keras tests."""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("tests.exporters.graphs", "tests.exporters.hub.support", "tests.exporters.keras_support")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras on TensorFlow, as the exporter imports it."""
    pytest.importorskip("tensorflow")
    from exporters.keras import _import_keras

    return _import_keras()


@pytest.fixture
def network(keras: Any) -> Any:
    """LeNet-5 with weights of its own."""
    from exporters.architectures.lenet5 import build_keras
    from tests.exporters.keras_support import scramble

    keras.backend.clear_session()
    return scramble(build_keras())
