"""LeNet-5: the two builders, the map between them, its bundled weights, the sample digits and the training command."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters.architectures import lenet5, train_lenet5
from exporters.samples import draw_digits
from runtime.errors import InvalidInput, InvalidWeights, OutputNotWritable

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "zoo" / "bundled" / "lenet5.safetensors"
DIGITS = ROOT / "exporters" / "samples" / "digits"
MNIST = ROOT.parent / "shared" / "data" / "mnist"
# Sums of at most 400 float32 products in another order; measured at most 6e-7.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def two_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def bundled_state():
    from safetensors.numpy import load_file

    return load_file(BUNDLED)


def torch_model(state):
    import torch

    model = lenet5.build_torch(len(state["fc3.bias"]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model.eval()


def torch_logits(state, images):
    import torch

    with torch.inference_mode():
        return torch_model(state)(torch.from_numpy(images)).numpy()


def keras_logits(state, images):
    model = lenet5.build_keras(len(state["fc3.bias"]))
    values = lenet5.keras_weights(state)
    for variable in model.variables:
        variable.assign(values.pop(variable.path))
    assert not values
    return np.asarray(model(images.transpose(0, 2, 3, 1)))


def digit_inputs():
    """The sample digits as a user's would come: resized, normalised, nothing known of their polarity."""
    small = [Image.open(DIGITS / f"{d}.png").resize((28, 28), Image.Resampling.BILINEAR) for d in range(10)]
    pixels = np.stack([np.asarray(picture, np.float32) for picture in small])[:, None]
    return (pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)


def random_state(classes):
    import torch

    torch.manual_seed(classes)
    return {name: value.numpy() for name, value in lenet5.build_torch(classes).state_dict().items()}


def mnist_file(name):
    path = MNIST / f"{name}.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    return gzip.decompress(path.read_bytes())


# The paper's layers ---------------------------------------------------------------------------------------------------


def test_torch_has_the_parameters_of_the_paper():
    sizes = {name: value.size for name, value in random_state(10).items()}
    per_layer = {
        layer: sizes[f"{layer}.weight"] + sizes[f"{layer}.bias"] for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")
    }
    # 1998: C1 156, C5 48,120, F6 10,164; conv2 with all six inputs per map, and a linear last layer.
    assert per_layer == {"conv1": 156, "conv2": 2416, "fc1": 48120, "fc2": 10164, "fc3": 850}
    assert sum(sizes.values()) == 61706


def test_keras_has_the_same_layers_and_paths():
    model = lenet5.build_keras()
    assert model.count_params() == 61706
    assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 10))
    assert {v.path: tuple(v.shape) for v in model.variables} == {
        path: value.shape for path, value in lenet5.keras_weights(random_state(10)).items()
    }


@pytest.mark.parametrize("classes", [1, 10, 37])
def test_frameworks_agree_on_random_weights(classes):
    state = random_state(classes)
    images = np.random.default_rng(classes).normal(size=(5, 1, 28, 28)).astype(np.float32)
    expected = torch_logits(state, images)
    assert expected.shape == (5, classes)
    assert np.abs(keras_logits(state, images) - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["random", "digits"])
def test_frameworks_agree_on_bundled_weights(kind):
    noise = np.random.default_rng(0).normal(size=(16, 1, 28, 28)).astype(np.float32)
    images = digit_inputs() if kind == "digits" else noise
    expected = torch_logits(bundled_state(), images)
    assert np.abs(keras_logits(bundled_state(), images) - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("builder", [lenet5.build_torch, lenet5.build_keras])
def test_no_classes_is_refused(builder):
    with pytest.raises(InvalidInput, match="num_classes 0"):
        builder(0)


def test_other_input_shape_is_refused():
    with pytest.raises(InvalidInput, match=r"\(32, 32, 1\)"):
        lenet5.build_keras(input_shape=(32, 32, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc2.bias"), "fc2.bias"),
        (lambda s: s.pop("fc3.bias"), "fc3.bias"),
        (lambda s: s.update({"bn.weight": np.zeros(1, np.float32)}), "bn.weight"),
        (lambda s: s.update({"fc1.weight": np.zeros((120, 256), np.float32)}), r"fc1.weight has shape \(120, 256\)"),
        (lambda s: s.update({"fc3.weight": np.zeros((9, 84), np.float32)}), r"fc3.weight has shape \(9, 84\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, words):
    state = random_state(10)
    change(state)
    with pytest.raises(InvalidWeights, match=words):
        lenet5.keras_weights(state)


# The bundled weights and the digits -----------------------------------------------------------------------------------


def test_bundled_file_is_small_float32_and_says_what_it_is():
    from safetensors import safe_open

    assert BUNDLED.stat().st_size < 300_000
    state = bundled_state()
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(value).all() for value in state.values())
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in random_state(10).items()}
    with safe_open(BUNDLED, "np") as file:
        notes = file.metadata()
    assert notes["trained_on"] == "MNIST"
    assert notes["command"].startswith("python -m exporters.architectures.train_lenet5 ")
    assert set(notes) == {"trained_on", "test_accuracy", "test_accuracy_inverted", "command"}


@pytest.mark.parametrize(
    ("inverted", "key", "least"), [(False, "test_accuracy", 0.990), (True, "test_accuracy_inverted", 0.985)]
)
def test_bundled_accuracy_on_mnist(inverted, key, least):
    from safetensors import safe_open

    # Read here without the training module's reader or preprocessing: 16 and 8 bytes of header, then bytes.
    pixels = np.frombuffer(mnist_file("t10k-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    truth = np.frombuffer(mnist_file("t10k-labels-idx1-ubyte"), np.uint8, offset=8)
    pixels = 255 - pixels if inverted else pixels
    logits = torch_logits(bundled_state(), ((pixels / 255 - 0.1307) / 0.3081).astype(np.float32))
    measured = (logits.argmax(1) == truth).mean()
    assert len(truth) == 10_000
    assert measured >= least
    with safe_open(BUNDLED, "np") as file:
        # Two pictures' room: rounding may turn a tie on another processor.
        assert measured == pytest.approx(float(file.metadata()[key]), abs=2.5e-4)


def test_sample_digits_are_classified():
    assert torch_logits(bundled_state(), digit_inputs()).argmax(1).tolist() == list(range(10))


@pytest.mark.parametrize("digit", [-1, 10])
def test_no_other_digit_is_drawn(digit):
    with pytest.raises(InvalidInput, match=f"digit {digit}"):
        draw_digits.draw(digit)


@pytest.mark.parametrize("digit", range(10))
def test_sample_digit_is_the_drawing(digit):
    with Image.open(DIGITS / f"{digit}.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (112, 112))
        pixels = np.asarray(picture, np.int16)
    assert set(pixels[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) == {255 if digit % 2 else 0}
    # Mean grey levels: another Pillow may round the edge of an ellipse otherwise.
    assert np.abs(pixels - np.asarray(draw_digits.draw(digit), np.int16)).mean() < 0.5


# The training command -------------------------------------------------------------------------------------------------


def idx(array):
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path):
    """Ten constant grey levels as ten classes: 256 training and 64 test pictures; one of four files gzipped."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 256), ("t10k", 64)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = np.broadcast_to((labels * 25)[:, None, None], (count, 28, 28)).astype(np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    plain = folder / "t10k-labels-idx1-ubyte"
    plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return folder


def test_command_gives_equal_files_for_equal_seeds(tiny_mnist, tmp_path, capsys):
    from safetensors.numpy import load_file

    outs = [tmp_path / f"{name}.safetensors" for name in ("a", "b", "c")]
    for out, seed in zip(outs, "003", strict=True):
        assert train_lenet5.main(["--data", str(tiny_mnist), "--epochs", "1", "--seed", seed, "--out", str(out)]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert not np.array_equal(load_file(outs[0])["fc1.weight"], load_file(outs[2])["fc1.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(out.name for out in outs), "mnist"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "nowhere: no train-images-idx3-ubyte"),
        (["--data", "nowhere", "--epochs", "0"], "--epochs 0"),
        (["--data", "nowhere", "--out", "no-folder/lenet5.safetensors"], "no writable folder no-folder"),
    ],
)
def test_command_refuses(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_lenet5.main(["--out", "x.safetensors", *options]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x08\x03\x00\x00",
        b"\x00\x00\x0d\x01\x00\x00\x00\x00",
        idx(np.zeros(5, np.uint8))[:-1],
    ],
)
def test_damaged_idx_is_refused(data, tmp_path):
    for path, content in ((tmp_path / "x", data), (tmp_path / "x.gz", gzip.compress(data))):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=path.name):
            train_lenet5.read_idx(path)


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(idx(np.arange(200, dtype=np.uint8)))
    for number, content in enumerate((b"no gzip", whole[:-20], whole[:20] + b"\xff" * 8 + whole[28:])):
        (tmp_path / f"{number}.gz").write_bytes(content)
        with pytest.raises(InvalidInput, match="download it again"):
            train_lenet5.read_idx(tmp_path / f"{number}.gz")


def test_command_downloads_without_data(tiny_mnist, tmp_path, monkeypatch):
    import torch
    import torchvision

    class Downloaded:
        def __init__(self, root, download):
            assert download
            assert Path(root).parent == tmp_path / "hub"
            self.raw_folder = str(tiny_mnist)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torchvision.datasets, "MNIST", Downloaded)
    assert train_lenet5.main(["--epochs", "1", "--out", str(tmp_path / "x.safetensors")]) == 0


def test_failed_download_is_one_line(tmp_path, monkeypatch, capsys):
    import torchvision

    def unreachable(root, download):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    assert train_lenet5.main(["--out", str(tmp_path / "x.safetensors")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: MNIST cannot be downloaded")
    assert message.endswith("--data\n")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "labels", [np.zeros(255, np.uint8), np.zeros((256, 1), np.uint8), np.full(256, 10, np.uint8)], ids=lambda a: a.shape
)
def test_labels_that_are_not_mnists_are_refused(labels, tiny_mnist):
    (tiny_mnist / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(InvalidInput, match="not MNIST's train set"):
        train_lenet5.load_mnist(tiny_mnist, "train")


def test_augmentation_keeps_the_picture_and_inverts_half():
    import torch

    images = torch.zeros(400, 28, 28, dtype=torch.uint8)
    images[:, 10:18, 10:18] = 255
    out = train_lenet5.augment(images, torch.Generator().manual_seed(0)).squeeze(1) * 0.3081 + 0.1307
    assert out.shape == images.shape
    inverted = out[:, 0, 0] > 0.5
    assert 160 <= int(inverted.sum()) <= 240  # four standard deviations of 400 coin throws
    corners = out[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners, inverted.float()[:, None].expand(-1, 4), atol=1e-6)
    ink = torch.where(inverted[:, None, None], 1 - out, out).sum((1, 2))
    # 64 pixels of ink, each side scaled by 1 / 0.85 at most and 1 / 1.15 at least.
    assert float(ink.min()) > 64 / 1.15**2 - 3
    assert float(ink.max()) < 64 / 0.85**2 + 3
    assert float(ink.std()) > 1


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "lenet5.safetensors"
    out.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputNotWritable, match="No space left"):
        train_lenet5.save(lenet5.build_torch(), out, {"trained_on": "nothing"})
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == b"old"
