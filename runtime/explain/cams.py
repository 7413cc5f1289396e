"""Class activation maps: which places of a layer's maps speak for a class.

A: the layer's activation, (K, h, w): K maps. G: the gradient of the class's score y with respect to A, of the same
shape. Every function gives (h, w) float32. relu(x) = max(x, 0): what speaks against the class is left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput

Maps = npt.NDArray[np.float32]

_TINY = 1e-12
_CONSTANT = 1e-3  # of the largest gradient: float32's rounding in what is constant over a map


def cam(activation: Maps, gradient: Maps) -> Maps:
    """sum_k w_k A_k, w_k the weight of map k's average in the linear layer behind it.

    Zhou et al., "Learning Deep Features for Discriminative Localization", 2016. With global average pooling and one
    linear layer, w_k is the sum of G_k, the same at every place; anywhere else there is no such w_k.

    Raises InvalidInput where that is not what follows the layer.
    """
    spread = np.ptp(gradient, axis=(1, 2)).max()
    if spread > _CONSTANT * np.abs(gradient).max():
        raise InvalidInput(
            "cam needs global average pooling and one linear layer behind the layer: use grad-cam, its generalisation"
        )
    return _weighted(gradient.sum(axis=(1, 2)), activation)


def grad_cam(activation: Maps, gradient: Maps) -> Maps:
    """relu(sum_k a_k A_k), a_k = mean over places of G_k.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
    """
    return _positive(_weighted(gradient.mean(axis=(1, 2)), activation))


def grad_cam_plus_plus(activation: Maps, gradient: Maps) -> Maps:
    """relu(sum_k w_k A_k), w_k = sum over places of alpha * relu(G), alpha = G^2 / (2 G^2 + G^3 * sum of A_k).

    Chattopadhyay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
    2018, equation 19; the exponential of the score that it takes the gradient of cancels out.
    """
    square = gradient**2
    below = 2 * square + square * gradient * activation.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(square, below, out=np.zeros_like(square), where=np.abs(below) > _TINY**2)
    return _positive(_weighted((alpha * _positive(gradient)).sum(axis=(1, 2)), activation))


def hires_cam(activation: Maps, gradient: Maps) -> Maps:
    """relu(sum_k G_k * A_k), place by place.

    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    2020.
    """
    return _positive((gradient * activation).sum(axis=0))


def layer_cam(activation: Maps, gradient: Maps) -> Maps:
    """relu(sum_k relu(G_k) * A_k), place by place; at home in early layers too.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", 2021.
    """
    return _positive((_positive(gradient) * activation).sum(axis=0))


def xgrad_cam(activation: Maps, gradient: Maps) -> Maps:
    """relu(sum_k a_k A_k), a_k = sum over places of G_k * A_k / sum of A_k.

    Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", 2020.
    """
    whole = activation.sum(axis=(1, 2))
    above = (gradient * activation).sum(axis=(1, 2))
    weights = np.divide(above, whole, out=np.zeros_like(whole), where=np.abs(whole) > _TINY)
    return _positive(_weighted(weights, activation))


def eigen_cam(activation: Maps, gradient: Maps) -> Maps:
    """relu of the first principal component of A over its places; no class takes part in it.

    Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", 2020. The component's sign is
    that of the mean activation, which a singular value decomposition leaves open.
    """
    places = activation.reshape(len(activation), -1).T.astype(np.float64)
    places = places - places.mean(axis=0)
    first = places @ np.linalg.svd(places, full_matrices=False)[2][0]
    mean = activation.mean(axis=0, dtype=np.float64).ravel()
    sign = -1 if first @ (mean - mean.mean()) < 0 else 1
    return _positive((sign * first).reshape(activation.shape[1:]).astype(np.float32))


def _weighted(weights: npt.NDArray[np.float32], activation: Maps) -> Maps:
    return np.asarray(np.tensordot(weights, activation, axes=1), dtype=np.float32)


def _positive(values: Maps) -> Maps:
    return np.maximum(values, 0)
