"""mini-Xception: the small separable-convolution residual network of the textbook listing, for two classes.

F. Chollet, Deep Learning with Python, 2nd edition, 2021, section 9.3.5 "Putting it together: A mini
Xception-like model"; the blocks are those of Xception (arXiv:1610.02357): BatchNorm -> ReLU ->
SeparableConv twice, then pooling, beside a strided 1x1 convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.errors import InvalidInput

if TYPE_CHECKING:
    import keras

_WIDTHS = (32, 64, 128, 256, 512)


def build_keras(num_classes: int = 1, input_shape: tuple[int, int, int] = (180, 180, 3)) -> keras.Model:
    """mini-Xception with random weights: float32 (batch, height, width, channels) in 0..255 to (batch, num_classes).

    num_classes: 1 gives the listing's one sigmoid, without the sigmoid: the logit of the second of two
        classes. More give as many logits.

    Raises InvalidInput when ``num_classes`` is below 1.
    """
    import keras
    from keras import layers

    if num_classes < 1:
        raise InvalidInput(f"mini-Xception: num_classes {num_classes}: give 1 or more")
    inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    # RGB channels depend on each other, against what separable convolutions assume: so the first is a plain one.
    x = layers.Conv2D(_WIDTHS[0], 5, use_bias=False, name="stem")(x)
    for index, width in enumerate(_WIDTHS, start=1):
        residual = x
        for half in "ab":
            x = layers.BatchNormalization(name=f"block{index}{half}_norm")(x)
            x = layers.Activation("relu", name=f"block{index}{half}_relu")(x)
            x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False, name=f"block{index}{half}_separable")(
                x
            )
        x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"block{index}_pool")(x)
        residual = layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False, name=f"block{index}_shortcut")(
            residual
        )
        x = layers.add([x, residual], name=f"block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="classifier")(x), name="mini_xception")
