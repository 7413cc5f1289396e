"""Class activation maps against their formulas written out, place by place."""

import itertools

import numpy as np
import pytest

from runtime.errors import InvalidInput
from runtime.explain import cams

RANDOM = np.random.default_rng(0)
A = np.maximum(RANDOM.normal(size=(5, 4, 3)), 0).astype(np.float32)
G = RANDOM.normal(size=(5, 4, 3)).astype(np.float32)
PLACES = list(itertools.product(range(4), range(3)))


def by_hand(value: object) -> np.ndarray:
    """relu of a function of (map, row, column), summed over the maps."""
    return np.array([[max(sum(value(k, i, j) for k in range(5)), 0) for j in range(3)] for i in range(4)])  # type: ignore[operator]


def test_grad_cam() -> None:
    wanted = by_hand(lambda k, i, j: sum(G[k, r, c] for r, c in PLACES) / 12 * A[k, i, j])
    np.testing.assert_allclose(cams.grad_cam(A, G), wanted, rtol=1e-4, atol=1e-6)


def test_hires_cam() -> None:
    np.testing.assert_allclose(cams.hires_cam(A, G), by_hand(lambda k, i, j: G[k, i, j] * A[k, i, j]), atol=1e-6)


def test_layer_cam() -> None:
    wanted = by_hand(lambda k, i, j: max(G[k, i, j], 0) * A[k, i, j])
    np.testing.assert_allclose(cams.layer_cam(A, G), wanted, atol=1e-6)


def test_xgrad_cam() -> None:
    def weight(k: int) -> float:
        return sum(float(G[k, r, c] * A[k, r, c]) for r, c in PLACES) / float(A[k].sum())

    np.testing.assert_allclose(cams.xgrad_cam(A, G), by_hand(lambda k, i, j: weight(k) * A[k, i, j]), rtol=1e-4)


def test_grad_cam_plus_plus() -> None:
    def alpha(k: int, r: int, c: int) -> float:
        g = float(G[k, r, c])
        return g**2 / (2 * g**2 + g**3 * float(A[k].sum()))

    def weight(k: int) -> float:
        return sum(alpha(k, r, c) * max(float(G[k, r, c]), 0) for r, c in PLACES)

    wanted = by_hand(lambda k, i, j: weight(k) * A[k, i, j])
    np.testing.assert_allclose(cams.grad_cam_plus_plus(A, G), wanted, rtol=1e-3, atol=1e-5)


def test_eigen_cam_is_the_first_component_however_it_is_turned() -> None:
    pattern = RANDOM.normal(size=(4, 3))
    activation = (np.arange(1, 6)[:, None, None] * pattern + 5).astype(np.float32)
    wanted = np.maximum((pattern - pattern.mean()) * np.sqrt(55), 0)
    np.testing.assert_allclose(cams.eigen_cam(activation, G), wanted, rtol=1e-4, atol=1e-4)


def test_cam_is_for_pooling_and_one_linear_layer() -> None:
    weights = RANDOM.normal(size=5).astype(np.float32)
    pooled = np.broadcast_to(weights[:, None, None] / 12, A.shape)
    np.testing.assert_allclose(cams.cam(A, pooled), np.tensordot(weights, A, axes=1), rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInput, match="global average pooling"):
        cams.cam(A, G)


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "xgrad_cam", "eigen_cam"])
@pytest.mark.filterwarnings("error")
def test_nothing_there_is_a_map_of_zeros(name: str) -> None:
    nothing = np.zeros_like(A)
    np.testing.assert_array_equal(getattr(cams, name)(nothing, G), np.zeros((4, 3)))
    if name != "eigen_cam":
        np.testing.assert_array_equal(getattr(cams, name)(A, nothing), np.zeros((4, 3)))
