"""The catalogue: one row per network. To add a model, add a row.

A row states facts; each is held against its origin by a test (parameters are counted, the
preprocessing is compared with the library's own at every export).
"""

from __future__ import annotations

from difflib import get_close_matches

from runtime.errors import UnknownName
from runtime.metadata import Preprocess
from zoo.spec import ModelSpec, Variant

# ---- preprocessing recipes shared by rows

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# torchvision's IMAGENET1K_V1 weights throughout: one recipe, which the field's checkpoints follow.
TORCHVISION = Preprocess(size=(224, 224), resize=256, scale=1 / 255, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
TORCHVISION_BICUBIC = Preprocess(
    size=(224, 224), resize=256, scale=1 / 255, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, interpolation="bicubic"
)
TIMM_HALF = Preprocess(
    size=(224, 224), resize=256, scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
)
# Keras Applications stretch the whole picture (load_img(target_size=...)); antialiased here.
KERAS_TF = Preprocess(size=(224, 224), resize=(224, 224), mean=(127.5,) * 3, std=(127.5,) * 3)
KERAS_CAFFE = Preprocess(
    size=(224, 224), resize=(224, 224), color="BGR", mean=(103.939, 116.779, 123.68), std=(1.0,) * 3
)
# These networks hold their own Rescaling and Normalization layers.
KERAS_INSIDE = Preprocess(size=(224, 224), resize=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3)
MNIST = Preprocess(size=(28, 28), resize=(28, 28), color="L", scale=1 / 255, mean=(0.1307,), std=(0.3081,))

_TORCHVISION = {"license": "BSD-3-Clause", "hub": "IMAGENET1K_V1"}
_KERAS = {"license": "Apache-2.0", "hub": "imagenet"}

# ---- the rows

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="lenet5",
        aliases=("lenet", "lenet-5"),
        paper="LeCun et al. 1998, Gradient-based learning applied to document recognition, doi:10.1109/5.726791",
        labels="digits",
        samples="digits",
        sources={
            "torch": Variant(
                builder="exporters.architectures.lenet5:build_torch",
                preprocess=MNIST,
                parameters=61_706,
                license="Apache-2.0",
                bundled="lenet5.safetensors",
            ),
            "keras": Variant(
                builder="exporters.architectures.lenet5:build_keras",
                preprocess=MNIST,
                parameters=61_706,
                license="Apache-2.0",
                bundled="lenet5.safetensors",
            ),
        },
    ),
    ModelSpec(
        name="squeezenet1_1",
        aliases=("squeezenet", "squeezenet-1.1", "squeezenet1.1"),
        paper="arXiv:1602.07360",
        sources={
            "torch": Variant(
                builder="torchvision:squeezenet1_1",
                preprocess=TORCHVISION,
                parameters=1_235_496,
                published="squeezenet1_1",
                **_TORCHVISION,
            ),
        },
    ),
    ModelSpec(
        name="mobilenet_v1",
        aliases=("mobilenetv1",),
        paper="arXiv:1704.04861",
        sources={
            "keras": Variant(
                builder="keras:MobileNet", preprocess=KERAS_TF, parameters=4_253_864, published="MobileNet", **_KERAS
            ),
            "torch": Variant(
                builder="timm:mobilenetv1_100",
                preprocess=TIMM_HALF,
                parameters=4_231_976,
                license="Apache-2.0",
                hub="timm/mobilenetv1_100.ra4_e3600_r224_in1k",
            ),
        },
    ),
    ModelSpec(
        name="mobilenet_v2",
        aliases=("mobilenet", "mobilenetv2"),
        paper="arXiv:1801.04381",
        sources={
            "torch": Variant(
                builder="torchvision:mobilenet_v2",
                preprocess=TORCHVISION,
                parameters=3_504_872,
                published="mobilenet_v2",
                **_TORCHVISION,
            ),
            "keras": Variant(
                builder="keras:MobileNetV2",
                preprocess=KERAS_TF,
                parameters=3_538_984,
                published="MobileNetV2",
                **_KERAS,
            ),
        },
    ),
    ModelSpec(
        name="mobilenet_v3_small",
        aliases=("mobilenetv3_small", "mobilenetv3small", "mobilenet_v3"),
        paper="arXiv:1905.02244",
        sources={
            "torch": Variant(
                builder="torchvision:mobilenet_v3_small",
                preprocess=TORCHVISION,
                parameters=2_542_856,
                published="mobilenet_v3_small",
                **_TORCHVISION,
            ),
            "keras": Variant(builder="keras:MobileNetV3Small", preprocess=KERAS_INSIDE, parameters=2_554_968, **_KERAS),
        },
    ),
    ModelSpec(
        name="mobilenet_v3_large",
        aliases=("mobilenetv3_large", "mobilenetv3large"),
        paper="arXiv:1905.02244",
        sources={
            "torch": Variant(
                builder="torchvision:mobilenet_v3_large",
                preprocess=TORCHVISION,
                parameters=5_483_032,
                published="mobilenet_v3_large",
                **_TORCHVISION,
            ),
            "keras": Variant(builder="keras:MobileNetV3Large", preprocess=KERAS_INSIDE, parameters=5_507_432, **_KERAS),
        },
    ),
    ModelSpec(
        name="resnet50",
        aliases=("resnet-50", "resnet_50", "resnet"),
        paper="arXiv:1512.03385",
        sources={
            "torch": Variant(
                builder="torchvision:resnet50",
                preprocess=TORCHVISION,
                parameters=25_557_032,
                published="resnet50",
                **_TORCHVISION,
            ),
            "keras": Variant(
                builder="keras:ResNet50",
                preprocess=KERAS_CAFFE,
                parameters=25_636_712,
                published="ResNet50",
                **_KERAS,
            ),
        },
    ),
    ModelSpec(
        name="efficientnet_b0",
        aliases=("efficientnetb0", "efficientnet-b0", "efficientnet"),
        paper="arXiv:1905.11946",
        sources={
            "torch": Variant(
                builder="torchvision:efficientnet_b0",
                preprocess=TORCHVISION_BICUBIC,
                parameters=5_288_548,
                published="efficientnet_b0",
                **_TORCHVISION,
            ),
            "keras": Variant(
                builder="keras:EfficientNetB0",
                preprocess=KERAS_INSIDE,
                parameters=5_330_571,
                published="EfficientNetB0",
                **_KERAS,
            ),
        },
    ),
)


def find(name: str) -> ModelSpec:
    """The row of that name or alias. Raises UnknownName with the nearest names."""
    known = {alias: spec for spec in MODELS for alias in (spec.name, *spec.aliases)}
    spec = known.get(name.lower())
    if spec is not None:
        return spec
    near = list(dict.fromkeys(known[match].name for match in get_close_matches(name.lower(), known, n=5, cutoff=0.5)))
    hint = f"did you mean {', '.join(near[:3])}?" if near else "`zoo list` shows all"
    raise UnknownName(f"no model {name!r} in the zoo: {hint}")
