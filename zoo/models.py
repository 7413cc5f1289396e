"""The catalogue: one row per network. To add a model, add a row.

A row states facts; each is held against its origin by a test (weights, layers and multiplications are
counted, the preprocessing is compared with the library's own configuration and again at every export).
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from runtime.errors import UnknownName
from runtime.metadata import Interpolation, Preprocess
from zoo.preprocessing import RECIPES
from zoo.spec import Facts, ModelSpec, Variant

# ---- preprocessing recipes shared by rows

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


def _imagenet(
    *,
    size: int = 224,
    resize: int | tuple[int, int] = 256,
    interpolation: Interpolation = "bilinear",
    mean: tuple[float, ...] = _MEAN,
    std: tuple[float, ...] = _STD,
) -> Preprocess:
    """The shorter side to ``resize``, the centre square of ``size``, 0..1, normalised: torchvision's and timm's way."""
    return Preprocess(size=(size, size), resize=resize, scale=1 / 255, mean=mean, std=std, interpolation=interpolation)


# Keras Applications stretch the whole picture (load_img(target_size=...)); antialiased here.
KERAS_TF, KERAS_CAFFE = RECIPES["tf"], RECIPES["caffe"]
KERAS_TORCH = Preprocess(size=(224, 224), resize=(224, 224), scale=1 / 255, mean=_MEAN, std=_STD)
# These networks hold their own Rescaling and Normalization layers.
KERAS_INSIDE = RECIPES["0-255"]
MNIST = Preprocess(size=(28, 28), resize=(28, 28), color="L", scale=1 / 255, mean=(0.1307,), std=(0.3081,))

# ---- a library's variants: what they have in common


def _torchvision(
    name: str,
    facts: Facts,
    rule: Preprocess | None = None,
    *,
    hub: str = "IMAGENET1K_V1",
    license: str = "BSD-3-Clause",
) -> Variant:
    """The V1 weights by default: one recipe of training, which the field's checkpoints follow."""
    return Variant(builder=f"torchvision:{name}", facts=facts, preprocess=rule or _imagenet(), license=license, hub=hub)


def _timm(name: str, facts: Facts, rule: Preprocess, *, hub: bool = True) -> Variant:
    """``name`` with its tag: timm's name of the weights."""
    return Variant(
        builder=f"timm:{name}", facts=facts, preprocess=rule, license="Apache-2.0", hub=f"timm/{name}" if hub else None
    )


def _keras(name: str, facts: Facts, rule: Preprocess) -> Variant:
    return Variant(builder=f"keras:{name}", facts=facts, preprocess=rule, license="Apache-2.0", hub="imagenet")


_SWAG: Any = {"hub": "IMAGENET1K_SWAG_LINEAR_V1", "license": "CC-BY-NC-4.0"}
_LENET5: Any = {
    "preprocess": MNIST,
    "facts": Facts(61_706, 61_706, 5, 416_520),
    "license": "Apache-2.0",
    "bundled": "lenet5.safetensors",
}

# ---- the rows: Facts are (total, trainable, depth, macs)

# fmt: off
MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="lenet5", aliases=("lenet",), labels="digits", samples="digits",
        paper="LeCun et al. 1998, Gradient-based learning applied to document recognition, doi:10.1109/5.726791",
        sources={
            "torch": Variant(builder="exporters.architectures.lenet5:build_torch", **_LENET5),
            "keras": Variant(builder="exporters.architectures.lenet5:build_keras", **_LENET5),
        },
    ),
    ModelSpec(name="alexnet", paper="arXiv:1404.5997", sources={
        "torch": _torchvision("alexnet", Facts(61_100_840, 61_100_840, 8, 714_188_480)),
    }),
    ModelSpec(name="vgg16", aliases=("vgg",), paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg16", Facts(138_357_544, 138_357_544, 16, 15_470_264_320)),
        "keras": _keras("VGG16", Facts(138_357_544, 138_357_544, 16, 15_470_264_320), KERAS_CAFFE),
    }),
    ModelSpec(name="vgg19", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg19", Facts(143_667_240, 143_667_240, 19, 19_632_062_464)),
        "keras": _keras("VGG19", Facts(143_667_240, 143_667_240, 19, 19_632_062_464), KERAS_CAFFE),
    }),
    ModelSpec(name="googlenet", aliases=("inception_v1",), paper="arXiv:1409.4842", sources={
        "torch": _torchvision("googlenet", Facts(6_639_464, 6_624_904, 115, 1_498_376_192)),
    }),
    ModelSpec(name="inception_v3", aliases=("inception",), paper="arXiv:1512.00567", sources={
        "torch": _torchvision("inception_v3", Facts(23_869_000, 23_834_568, 189, 5_713_216_096),
            _imagenet(size=299, resize=342)),
        "keras": _keras("InceptionV3", Facts(23_851_784, 23_817_352, 189, 5_713_216_096), KERAS_TF.at_size(299, 299)),
    }),
    ModelSpec(name="inception_v4", paper="arXiv:1602.07261", sources={
        "torch": _timm("inception_v4.tf_in1k", Facts(42_742_984, 42_679_816, 299, 12_253_974_624),
            _imagenet(size=299, resize=341, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="inception_resnet_v2", paper="arXiv:1602.07261", sources={
        "keras": _keras("InceptionResNetV2", Facts(55_873_736, 55_813_192, 449, 13_155_794_016),
            KERAS_TF.at_size(299, 299)),
        "torch": _timm("inception_resnet_v2.tf_in1k", Facts(55_904_008, 55_843_464, 449, 13_155_794_016),
            _imagenet(size=299, resize=333, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="resnet18", paper="arXiv:1512.03385", sources={
        "torch": _torchvision("resnet18", Facts(11_699_112, 11_689_512, 41, 1_814_073_344)),
    }),
    ModelSpec(name="resnet34", paper="arXiv:1512.03385", sources={
        "torch": _torchvision("resnet34", Facts(21_814_696, 21_797_672, 73, 3_663_761_408)),
    }),
    ModelSpec(name="resnet50", aliases=("resnet",), paper="arXiv:1512.03385", sources={
        "torch": _torchvision("resnet50", Facts(25_610_152, 25_557_032, 107, 4_089_184_256)),
        "keras": _keras("ResNet50", Facts(25_636_712, 25_583_592, 107, 3_857_973_248), KERAS_CAFFE),
    }),
    ModelSpec(name="resnet101", paper="arXiv:1512.03385", sources={
        "torch": _torchvision("resnet101", Facts(44_654_504, 44_549_160, 209, 7_801_405_440)),
        "keras": _keras("ResNet101", Facts(44_707_176, 44_601_832, 209, 7_570_194_432), KERAS_CAFFE),
    }),
    ModelSpec(name="resnet152", paper="arXiv:1512.03385", sources={
        "torch": _torchvision("resnet152", Facts(60_344_232, 60_192_808, 311, 11_513_626_624)),
        "keras": _keras("ResNet152", Facts(60_419_944, 60_268_520, 311, 11_282_415_616), KERAS_CAFFE),
    }),
    ModelSpec(name="resnet18_v2", aliases=("resnetv2_18",), paper="arXiv:1603.05027", sources={
        "torch": _timm("resnetv2_18.ra4_e3600_r224_in1k", Facts(11_695_528, 11_687_720, 38, 1_814_073_344),
            _imagenet(resize=248, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="resnet34_v2", aliases=("resnetv2_34",), paper="arXiv:1603.05027", sources={
        "torch": _timm("resnetv2_34.ra4_e3600_r224_in1k", Facts(21_811_112, 21_795_880, 70, 3_663_761_408),
            _imagenet(resize=248, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="resnet50_v2", aliases=("resnetv2_50",), paper="arXiv:1603.05027", sources={
        "keras": _keras("ResNet50V2", Facts(25_613_800, 25_568_360, 103, 3_482_255_360), KERAS_TF),
        "torch": _timm("resnetv2_50.a1h_in1k", Facts(25_594_792, 25_549_352, 103, 4_089_184_256),
            _imagenet(resize=235, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="resnet101_v2", aliases=("resnetv2_101",), paper="arXiv:1603.05027", sources={
        "keras": _keras("ResNet101V2", Facts(44_675_560, 44_577_896, 205, 7_194_476_544), KERAS_TF),
        "torch": _timm("resnetv2_101.a1h_in1k", Facts(44_639_144, 44_541_480, 205, 7_801_405_440),
            _imagenet(resize=235, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="resnet152_v2", aliases=("resnetv2_152",), paper="arXiv:1603.05027", sources={
        "keras": _keras("ResNet152V2", Facts(60_380_648, 60_236_904, 307, 10_906_697_728), KERAS_TF),
    }),
    ModelSpec(name="xception", paper="arXiv:1610.02357", sources={
        "keras": _keras("Xception", Facts(22_910_480, 22_855_952, 81, 8_357_403_496), KERAS_TF.at_size(299, 299)),
        "torch": _timm("legacy_xception", Facts(22_910_480, 22_855_952, 115, 8_357_403_496),
            _imagenet(size=299, resize=333, interpolation="bicubic", mean=_HALF, std=_HALF), hub=False),
    }),
    ModelSpec(
        name="mini_xception", paper="F. Chollet, Deep Learning with Python, 2nd edition, 2021, section 9.3",
        task="binary", labels="cats_dogs", sources={
            "keras": Variant(
                builder="exporters.architectures.mini_xception:build_keras",
                preprocess=KERAS_INSIDE.at_size(180, 180), facts=Facts(721_857, 718_849, 27, 383_028_992),
            ),
        },
    ),
    ModelSpec(name="mobilenet_v1", paper="arXiv:1704.04861", sources={
        "keras": _keras("MobileNet", Facts(4_253_864, 4_231_976, 55, 568_740_352), KERAS_TF),
        "torch": _timm("mobilenetv1_100.ra4_e3600_r224_in1k", Facts(4_253_864, 4_231_976, 55, 568_740_352),
            _imagenet(interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="mobilenet_v2", aliases=("mobilenet",), paper="arXiv:1801.04381", sources={
        "torch": _torchvision("mobilenet_v2", Facts(3_538_984, 3_504_872, 105, 300_774_272)),
        "keras": _keras("MobileNetV2", Facts(3_538_984, 3_504_872, 105, 300_774_272), KERAS_TF),
    }),
    ModelSpec(name="mobilenet_v3_small", aliases=("mobilenet_v3",), paper="arXiv:1905.02244", sources={
        "torch": _torchvision("mobilenet_v3_small", Facts(2_554_968, 2_542_856, 88, 56_510_400)),
        "keras": _keras("MobileNetV3Small", Facts(2_554_968, 2_542_856, 88, 56_510_400), KERAS_INSIDE),
    }),
    ModelSpec(name="mobilenet_v3_large", paper="arXiv:1905.02244", sources={
        "torch": _torchvision("mobilenet_v3_large", Facts(5_507_432, 5_483_032, 110, 216_589_760)),
        "keras": _keras("MobileNetV3Large", Facts(5_507_432, 5_483_032, 110, 216_589_760), KERAS_INSIDE),
    }),
    ModelSpec(name="efficientnet_b0", aliases=("efficientnet",), paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b0", Facts(5_330_564, 5_288_548, 131, 385_814_752),
            _imagenet(interpolation="bicubic")),
        "keras": _keras("EfficientNetB0", Facts(5_330_571, 5_288_548, 132, 385_814_752), KERAS_INSIDE),
    }),
    ModelSpec(name="efficientnet_b1", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b1", Facts(7_856_232, 7_794_184, 185, 686_802_832),
            _imagenet(size=240, interpolation="bicubic")),
        "keras": _keras("EfficientNetB1", Facts(7_856_239, 7_794_184, 186, 686_802_832),
            KERAS_INSIDE.at_size(240, 240)),
    }),
    ModelSpec(name="efficientnet_b2", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b2", Facts(9_177_562, 9_109_994, 185, 1_087_529_456),
            _imagenet(size=288, resize=288, interpolation="bicubic")),
        "keras": _keras("EfficientNetB2", Facts(9_177_569, 9_109_994, 186, 993_561_872),
            KERAS_INSIDE.at_size(260, 260)),
    }),
    ModelSpec(name="efficientnet_b3", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b3", Facts(12_320_528, 12_233_232, 209, 1_827_141_392),
            _imagenet(size=300, resize=320, interpolation="bicubic")),
        "keras": _keras("EfficientNetB3", Facts(12_320_535, 12_233_232, 210, 1_827_141_392),
            KERAS_INSIDE.at_size(300, 300)),
    }),
    ModelSpec(name="efficientnet_b4", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b4", Facts(19_466_816, 19_341_616, 257, 4_393_771_024),
            _imagenet(size=380, resize=384, interpolation="bicubic")),
        "keras": _keras("EfficientNetB4", Facts(19_466_823, 19_341_616, 258, 4_393_771_024),
            KERAS_INSIDE.at_size(380, 380)),
    }),
    ModelSpec(name="efficientnet_b5", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b5", Facts(30_562_520, 30_389_784, 311, 10_266_384_752),
            _imagenet(size=456, resize=456, interpolation="bicubic")),
        "keras": _keras("EfficientNetB5", Facts(30_562_527, 30_389_784, 312, 10_266_384_752),
            KERAS_INSIDE.at_size(456, 456)),
    }),
    ModelSpec(name="efficientnet_b6", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b6", Facts(43_265_136, 43_040_704, 359, 19_067_593_536),
            _imagenet(size=528, resize=528, interpolation="bicubic")),
        "keras": _keras("EfficientNetB6", Facts(43_265_143, 43_040_704, 360, 19_067_593_536),
            KERAS_INSIDE.at_size(528, 528)),
    }),
    ModelSpec(name="efficientnet_b7", paper="arXiv:1905.11946", sources={
        "torch": _torchvision("efficientnet_b7", Facts(66_658_680, 66_347_960, 437, 37_745_884_192),
            _imagenet(size=600, resize=600, interpolation="bicubic")),
        "keras": _keras("EfficientNetB7", Facts(66_658_687, 66_347_960, 438, 37_745_884_192),
            KERAS_INSIDE.at_size(600, 600)),
    }),
    ModelSpec(name="squeezenet1_0", paper="arXiv:1602.07360", sources={
        "torch": _torchvision("squeezenet1_0", Facts(1_248_424, 1_248_424, 26, 818_924_576)),
    }),
    ModelSpec(name="squeezenet1_1", aliases=("squeezenet",), paper="arXiv:1602.07360", sources={
        "torch": _torchvision("squeezenet1_1", Facts(1_235_496, 1_235_496, 26, 349_151_936)),
    }),
    # the rest of Keras Applications and of torchvision's families
    ModelSpec(name="efficientnet_v2_b0", paper="arXiv:2104.00298", sources={
        "keras": _keras("EfficientNetV2B0", Facts(7_200_312, 7_139_704, 151, 718_086_176), KERAS_INSIDE),
        "torch": _timm("tf_efficientnetv2_b0.in1k", Facts(7_200_312, 7_139_704, 151, 528_186_752),
            _imagenet(size=192, resize=219, interpolation="bicubic")),
    }),
    ModelSpec(name="efficientnet_v2_b1", paper="arXiv:2104.00298", sources={
        "keras": _keras("EfficientNetV2B1", Facts(8_212_124, 8_141_052, 185, 1_196_819_360),
            KERAS_INSIDE.at_size(240, 240)),
        "torch": _timm("tf_efficientnetv2_b1.in1k", Facts(8_212_124, 8_141_052, 185, 747_003_008),
            _imagenet(size=192, resize=217, interpolation="bicubic")),
    }),
    ModelSpec(name="efficientnet_v2_b2", paper="arXiv:2104.00298", sources={
        "keras": _keras("EfficientNetV2B2", Facts(10_178_374, 10_096_086, 193, 1_697_542_832),
            KERAS_INSIDE.at_size(260, 260)),
        "torch": _timm("tf_efficientnetv2_b2.in1k", Facts(10_178_374, 10_096_086, 193, 1_043_476_528),
            _imagenet(size=208, resize=233, interpolation="bicubic")),
    }),
    ModelSpec(name="efficientnet_v2_b3", paper="arXiv:2104.00298", sources={
        "keras": _keras("EfficientNetV2B3", Facts(14_467_622, 14_358_406, 225, 3_011_458_816),
            KERAS_INSIDE.at_size(300, 300)),
        "torch": _timm("tf_efficientnetv2_b3.in21k_ft_in1k", Facts(14_467_622, 14_358_406, 225, 1_908_036_640),
            _imagenet(size=240, resize=(266, 266), interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="efficientnet_v2_s", aliases=("efficientnet_v2",), paper="arXiv:2104.00298", sources={
        "torch": _torchvision("efficientnet_v2_s", Facts(21_612_360, 21_458_488, 281, 8_365_617_152),
            _imagenet(size=384, resize=384)),
        "keras": _keras("EfficientNetV2S", Facts(21_612_360, 21_458_488, 281, 8_365_617_152),
            KERAS_INSIDE.at_size(384, 384)),
    }),
    ModelSpec(name="efficientnet_v2_m", paper="arXiv:2104.00298", sources={
        "torch": _torchvision("efficientnet_v2_m", Facts(54_431_388, 54_139_356, 403, 24_582_460_384),
            _imagenet(size=480, resize=480)),
        "keras": _keras("EfficientNetV2M", Facts(54_431_388, 54_139_356, 403, 24_582_460_384),
            KERAS_INSIDE.at_size(480, 480)),
    }),
    ModelSpec(name="efficientnet_v2_l", paper="arXiv:2104.00298", sources={
        "torch": _torchvision("efficientnet_v2_l", Facts(119_027_848, 118_515_272, 557, 56_079_699_008),
            _imagenet(size=480, resize=480, interpolation="bicubic", mean=_HALF, std=_HALF)),
        "keras": _keras("EfficientNetV2L", Facts(119_027_848, 118_515_272, 557, 56_079_699_008),
            KERAS_INSIDE.at_size(480, 480)),
    }),
    ModelSpec(name="densenet121", aliases=("densenet",), paper="arXiv:1608.06993", sources={
        "torch": _torchvision("densenet121", Facts(8_062_504, 7_978_856, 242, 2_834_161_664)),
        "keras": _keras("DenseNet121", Facts(8_062_504, 7_978_856, 242, 2_834_161_664), KERAS_TORCH),
    }),
    ModelSpec(name="densenet161", paper="arXiv:1608.06993", sources={
        "torch": _torchvision("densenet161", Facts(28_900_936, 28_681_000, 322, 7_727_907_072)),
    }),
    ModelSpec(name="densenet169", paper="arXiv:1608.06993", sources={
        "torch": _torchvision("densenet169", Facts(14_307_880, 14_149_480, 338, 3_359_843_328)),
        "keras": _keras("DenseNet169", Facts(14_307_880, 14_149_480, 338, 3_359_843_328), KERAS_TORCH),
    }),
    ModelSpec(name="densenet201", paper="arXiv:1608.06993", sources={
        "torch": _torchvision("densenet201", Facts(20_242_984, 20_013_928, 402, 4_291_365_888)),
        "keras": _keras("DenseNet201", Facts(20_242_984, 20_013_928, 402, 4_291_365_888), KERAS_TORCH),
    }),
    ModelSpec(name="nasnet_mobile", aliases=("nasnet",), paper="arXiv:1707.07012", sources={
        "keras": _keras("NASNetMobile", Facts(5_326_716, 5_289_978, 389, 563_638_816), KERAS_TF),
    }),
    ModelSpec(name="nasnet_large", aliases=("nasnetalarge",), paper="arXiv:1707.07012", sources={
        "keras": _keras("NASNetLarge", Facts(88_949_818, 88_753_150, 533, 23_783_414_658), KERAS_TF.at_size(331, 331)),
        "torch": _timm("nasnetalarge.tf_in1k", Facts(88_949_818, 88_753_150, 753, 23_783_414_658),
            _imagenet(size=331, resize=363, interpolation="bicubic", mean=_HALF, std=_HALF)),
    }),
    ModelSpec(name="convnext_tiny", aliases=("convnext",), paper="arXiv:2201.03545", sources={
        "torch": _torchvision("convnext_tiny", Facts(28_589_128, 28_589_128, 100, 4_455_531_264),
            _imagenet(resize=236)),
        "keras": _keras("ConvNeXtTiny", Facts(28_589_128, 28_589_128, 100, 4_455_531_264), KERAS_INSIDE),
    }),
    ModelSpec(name="convnext_small", paper="arXiv:2201.03545", sources={
        "torch": _torchvision("convnext_small", Facts(50_223_688, 50_223_688, 190, 8_683_712_256),
            _imagenet(resize=230)),
        "keras": _keras("ConvNeXtSmall", Facts(50_223_688, 50_223_688, 190, 8_683_712_256), KERAS_INSIDE),
    }),
    ModelSpec(name="convnext_base", paper="arXiv:2201.03545", sources={
        "torch": _torchvision("convnext_base", Facts(88_591_464, 88_591_464, 190, 15_354_729_472),
            _imagenet(resize=232)),
        "keras": _keras("ConvNeXtBase", Facts(88_591_464, 88_591_464, 190, 15_354_729_472), KERAS_INSIDE),
    }),
    ModelSpec(name="convnext_large", paper="arXiv:2201.03545", sources={
        "torch": _torchvision("convnext_large", Facts(197_767_336, 197_767_336, 190, 34_361_433_600),
            _imagenet(resize=232)),
        "keras": _keras("ConvNeXtLarge", Facts(197_767_336, 197_767_336, 190, 34_361_433_600), KERAS_INSIDE),
    }),
    ModelSpec(name="convnext_xlarge", paper="arXiv:2201.03545", sources={
        "keras": _keras("ConvNeXtXLarge", Facts(350_196_968, 350_196_968, 190, 60_921_030_656), KERAS_INSIDE),
        "torch": _timm("convnext_xlarge.fb_in22k_ft_in1k", Facts(350_196_968, 350_196_968, 190, 60_921_030_656),
            _imagenet(interpolation="bicubic")),
    }),
    ModelSpec(name="vgg11", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg11", Facts(132_863_336, 132_863_336, 11, 7_609_090_048)),
    }),
    ModelSpec(name="vgg13", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg13", Facts(133_047_848, 133_047_848, 13, 11_308_466_176)),
    }),
    ModelSpec(name="vgg11_bn", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg11_bn", Facts(132_874_344, 132_868_840, 19, 7_609_090_048)),
    }),
    ModelSpec(name="vgg13_bn", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg13_bn", Facts(133_059_624, 133_053_736, 23, 11_308_466_176)),
    }),
    ModelSpec(name="vgg16_bn", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg16_bn", Facts(138_374_440, 138_365_992, 29, 15_470_264_320)),
    }),
    ModelSpec(name="vgg19_bn", paper="arXiv:1409.1556", sources={
        "torch": _torchvision("vgg19_bn", Facts(143_689_256, 143_678_248, 35, 19_632_062_464)),
    }),
    ModelSpec(name="resnext50_32x4d", aliases=("resnext50",), paper="arXiv:1611.05431", sources={
        "torch": _torchvision("resnext50_32x4d", Facts(25_097_128, 25_028_904, 107, 4_230_479_872)),
    }),
    ModelSpec(name="resnext101_32x8d", paper="arXiv:1611.05431", sources={
        "torch": _torchvision("resnext101_32x8d", Facts(88_994_216, 88_791_336, 209, 16_414_015_488)),
    }),
    ModelSpec(name="resnext101_64x4d", paper="arXiv:1611.05431", sources={
        "torch": _torchvision("resnext101_64x4d", Facts(83_658_152, 83_455_272, 209, 15_460_270_080),
            _imagenet(resize=232)),
    }),
    ModelSpec(name="wide_resnet50_2", paper="arXiv:1605.07146", sources={
        "torch": _torchvision("wide_resnet50_2", Facts(68_951_464, 68_883_240, 107, 11_398_021_120)),
    }),
    ModelSpec(name="wide_resnet101_2", paper="arXiv:1605.07146", sources={
        "torch": _torchvision("wide_resnet101_2", Facts(127_024_552, 126_886_696, 209, 22_753_050_624)),
    }),
    ModelSpec(name="mnasnet0_5", paper="arXiv:1807.11626", sources={
        "torch": _torchvision("mnasnet0_5", Facts(2_239_136, 2_218_512, 105, 104_455_968)),
    }),
    ModelSpec(name="mnasnet0_75", paper="arXiv:1807.11626", sources={
        "torch": _torchvision("mnasnet0_75", Facts(3_200_016, 3_170_208, 105, 215_493_104), _imagenet(resize=232)),
    }),
    ModelSpec(name="mnasnet1_0", aliases=("mnasnet",), paper="arXiv:1807.11626", sources={
        "torch": _torchvision("mnasnet1_0", Facts(4_421_232, 4_383_312, 105, 314_415_872)),
    }),
    ModelSpec(name="mnasnet1_3", paper="arXiv:1807.11626", sources={
        "torch": _torchvision("mnasnet1_3", Facts(6_331_072, 6_282_256, 105, 526_362_432), _imagenet(resize=232)),
    }),
    ModelSpec(name="shufflenet_v2_x0_5", paper="arXiv:1807.11164", sources={
        "torch": _torchvision("shufflenet_v2_x0_5", Facts(1_374_744, 1_366_792, 113, 40_476_448)),
    }),
    ModelSpec(name="shufflenet_v2_x1_0", aliases=("shufflenet", "shufflenet_v2",), paper="arXiv:1807.11164", sources={
        "torch": _torchvision("shufflenet_v2_x1_0", Facts(2_294_784, 2_278_604, 113, 144_907_992)),
    }),
    ModelSpec(name="shufflenet_v2_x1_5", paper="arXiv:1807.11164", sources={
        "torch": _torchvision("shufflenet_v2_x1_5", Facts(3_527_064, 3_503_624, 113, 295_759_392),
            _imagenet(resize=232)),
    }),
    ModelSpec(name="shufflenet_v2_x2_0", paper="arXiv:1807.11164", sources={
        "torch": _torchvision("shufflenet_v2_x2_0", Facts(7_427_712, 7_393_996, 113, 583_253_464),
            _imagenet(resize=232)),
    }),
    ModelSpec(name="regnet_x_400mf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_400mf", Facts(5_533_832, 5_495_976, 143, 413_812_608)),
    }),
    ModelSpec(name="regnet_x_800mf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_800mf", Facts(7_296_968, 7_259_656, 107, 799_699_712)),
    }),
    ModelSpec(name="regnet_x_1_6gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_1_6gf", Facts(9_233_640, 9_190_136, 119, 1_602_849_792)),
    }),
    ModelSpec(name="regnet_x_3_2gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_3_2gf", Facts(15_359_112, 15_296_552, 161, 3_176_621_952)),
    }),
    ModelSpec(name="regnet_x_8gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_8gf", Facts(39_663_112, 39_572_648, 149, 7_995_132_416)),
    }),
    ModelSpec(name="regnet_x_16gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_16gf", Facts(54_389_704, 54_278_536, 143, 15_940_755_456)),
    }),
    ModelSpec(name="regnet_x_32gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_x_32gf", Facts(107_973_576, 107_811_560, 149, 31_735_929_792)),
    }),
    ModelSpec(name="regnet_y_400mf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_400mf", Facts(4_371_296, 4_344_144, 139, 401_842_848)),
    }),
    ModelSpec(name="regnet_y_800mf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_800mf", Facts(6_462_944, 6_432_512, 123, 833_856_256)),
    }),
    ModelSpec(name="regnet_y_1_6gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_1_6gf", Facts(11_255_102, 11_202_430, 227, 1_612_076_160)),
    }),
    ModelSpec(name="regnet_y_3_2gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_3_2gf", Facts(19_502_498, 19_436_338, 179, 3_176_482_752)),
    }),
    ModelSpec(name="regnet_y_8gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_8gf", Facts(39_468_000, 39_381_472, 147, 8_473_070_592)),
    }),
    ModelSpec(name="regnet_y_16gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_16gf", Facts(83_712_956, 83_590_140, 155, 15_911_510_272)),
    }),
    ModelSpec(name="regnet_y_32gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_32gf", Facts(145_205_058, 145_046_770, 171, 32_279_552_832)),
    }),
    ModelSpec(name="regnet_y_128gf", paper="arXiv:2003.13678", sources={
        "torch": _torchvision("regnet_y_128gf", Facts(645_227_966, 644_812_894, 227, 127_517_815_680),
            _imagenet(resize=224, interpolation="bicubic"), **_SWAG),
    }),
    ModelSpec(name="vit_b_16", aliases=("vit",), paper="arXiv:2010.11929", sources={
        "torch": _torchvision("vit_b_16", Facts(86_567_656, 86_567_656, 77, 17_563_828_224)),
    }),
    ModelSpec(name="vit_b_32", paper="arXiv:2010.11929", sources={
        "torch": _torchvision("vit_b_32", Facts(88_224_232, 88_224_232, 77, 4_409_186_304)),
    }),
    ModelSpec(name="vit_l_16", paper="arXiv:2010.11929", sources={
        "torch": _torchvision("vit_l_16", Facts(304_326_632, 304_326_632, 149, 61_554_712_576), _imagenet(resize=242)),
    }),
    ModelSpec(name="vit_l_32", paper="arXiv:2010.11929", sources={
        "torch": _torchvision("vit_l_32", Facts(306_535_400, 306_535_400, 149, 15_377_539_072)),
    }),
    ModelSpec(name="vit_h_14", paper="arXiv:2010.11929", sources={
        "torch": _torchvision("vit_h_14", Facts(632_045_800, 632_045_800, 197, 167_295_109_120),
            _imagenet(resize=224, interpolation="bicubic"), **_SWAG),
    }),
    ModelSpec(name="swin_t", aliases=("swin",), paper="arXiv:2103.14030", sources={
        "torch": _torchvision("swin_t", Facts(28_288_354, 28_288_354, 94, 4_490_566_656),
            _imagenet(resize=232, interpolation="bicubic")),
    }),
    ModelSpec(name="swin_s", paper="arXiv:2103.14030", sources={
        "torch": _torchvision("swin_s", Facts(49_606_258, 49_606_258, 178, 8_740_875_264),
            _imagenet(resize=246, interpolation="bicubic")),
    }),
    ModelSpec(name="swin_b", paper="arXiv:2103.14030", sources={
        "torch": _torchvision("swin_b", Facts(87_768_224, 87_768_224, 178, 15_430_946_816),
            _imagenet(resize=238, interpolation="bicubic")),
    }),
    ModelSpec(name="swin_v2_t", aliases=("swin_v2",), paper="arXiv:2111.09883", sources={
        "torch": _torchvision("swin_v2_t", Facts(28_351_570, 28_351_570, 118, 5_921_028_096),
            _imagenet(size=256, resize=260, interpolation="bicubic")),
    }),
    ModelSpec(name="swin_v2_s", paper="arXiv:2111.09883", sources={
        "torch": _torchvision("swin_v2_s", Facts(49_737_442, 49_737_442, 226, 11_507_841_024),
            _imagenet(size=256, resize=260, interpolation="bicubic")),
    }),
    ModelSpec(name="swin_v2_b", paper="arXiv:2111.09883", sources={
        "torch": _torchvision("swin_v2_b", Facts(87_930_848, 87_930_848, 226, 20_276_289_536),
            _imagenet(size=256, resize=272, interpolation="bicubic")),
    }),
    ModelSpec(name="maxvit_t", aliases=("maxvit",), paper="arXiv:2204.01697", sources={
        "torch": _torchvision("maxvit_t", Facts(30_967_240, 30_919_624, 252, 5_558_046_720),
            _imagenet(resize=224, interpolation="bicubic")),
    }),
)
# fmt: on


def find(name: str) -> ModelSpec:
    """The row of that name or alias, however it is spelt. Raises UnknownName with the nearest names."""
    known = {canonical(alias): spec for spec in MODELS for alias in (spec.name, *spec.aliases)}
    wanted = canonical(name)
    if wanted in known:
        return known[wanted]
    near = list(dict.fromkeys(known[match].name for match in get_close_matches(wanted, known, n=5, cutoff=0.5)))
    hint = f"did you mean {', '.join(near[:3])}?" if near else "`zoo list` shows all"
    raise UnknownName(f"no model {name!r} in the zoo: {hint}")


def canonical(name: str) -> str:
    """A name without its spelling: ResNet-50, resnet_50 and ResNet50 are one; 1.6 and 1_6 are one, 16 another."""
    plain = re.sub(r"[-_. ]+", "_", name.lower())
    return re.sub(r"(?<!\d)_|_(?!\d)", "", plain)
