"""Train the LeNet-5 that edgezoo bundles: ``python -m exporters.architectures.train_lenet5 --data FOLDER``.

FOLDER holds MNIST's four idx files, plain or gzipped; without ``--data`` torchvision downloads them.
Training pictures are turned, moved, scaled and sheared a little, and half of them inverted, because people draw
black on white at least as often as MNIST's white on black. The last weights are kept: the test set selects nothing.
One seed gives one result on one machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from exporters.architectures.lenet5 import build_torch
from runtime.errors import EdgeZooError, InvalidInput, OutputNotWritable, WeightsUnavailable

if TYPE_CHECKING:
    import torch

    Pictures = tuple[torch.Tensor, torch.Tensor]  # uint8 (n, 28, 28), int64 (n,)

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pictures in 0..1, white on black

_MODULE = "exporters.architectures.train_lenet5"
_BATCH = 128
_PEAK_RATE = 4e-3
_THREADS = 2  # fixed: the order of floating-point sums, so the result, depends on it
_INVERTED_SHARE = 0.5
_DEGREES, _SHIFT, _SCALE, _SHEAR = 12.0, 2.5 / 14, 0.15, 0.2  # half ranges; a shift of 1 is half the picture


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """One idx file of unsigned bytes, plain or ``.gz``, in the shape its header states.

    Raises InvalidInput when the file is not such a file or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path}: cannot be read ({error}): download it again") from error
    rank = data[3] if len(data) > 3 and data[:3] == b"\x00\x00\x08" else 0
    start = 4 + 4 * rank
    if rank == 0 or len(data) < start:
        raise InvalidInput(f"{path}: not an idx file of unsigned bytes: give MNIST's own files")
    shape = tuple(int(side) for side in np.frombuffer(data, ">u4", rank, 4))
    if len(data) - start != math.prod(shape):
        raise InvalidInput(f"{path}: {len(data) - start} bytes for shape {shape}: download it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def load_mnist(folder: Path, split: str) -> Pictures:
    """MNIST's ``split`` ("train" or "t10k") from a folder: uint8 (n, 28, 28) and int64 labels (n,).

    Raises InvalidInput when a file is missing, damaged or not MNIST's.
    """
    import torch

    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        found = [path for suffix in ("", ".gz") if (path := folder / f"{split}-{kind}{suffix}").is_file()]
        if not found:
            raise InvalidInput(f"{folder}: no {split}-{kind}, plain or .gz: give the folder of MNIST's idx files")
        arrays.append(read_idx(found[0]))
    images, labels = arrays
    if images.shape != (labels.size, 28, 28) or labels.ndim != 1 or not labels.size or labels.max() > 9:
        raise InvalidInput(f"{folder}: images {images.shape} and labels {labels.shape} are not MNIST's {split} set")
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def prepare(images: torch.Tensor, *, invert: bool = False) -> torch.Tensor:
    """Pictures uint8 (n, 28, 28) as the network's input, float32 (n, 1, 28, 28); ``invert`` swaps black and white."""
    pixels = images.unsqueeze(1).float() / 255
    return ((1 - pixels if invert else pixels) - MEAN) / STD


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """``prepare`` with a random small affine map per picture, and a random half of the pictures inverted."""
    import torch
    from torch.nn import functional as F

    count = len(images)

    def uniform(half_range: float) -> torch.Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * half_range

    angle, shear = uniform(math.radians(_DEGREES)), uniform(_SHEAR)
    wide, high = 1 + uniform(_SCALE), 1 + uniform(_SCALE)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([wide * cos, wide * (shear * cos - sin), uniform(_SHIFT)], 1)
    second = torch.stack([high * sin, high * (shear * sin + cos), uniform(_SHIFT)], 1)
    pixels = images.unsqueeze(1).float() / 255
    grid = F.affine_grid(torch.stack([first, second], 1), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, align_corners=False)
    # Inverted after moving: what comes in from outside the frame is background in both polarities.
    inverted = torch.rand(count, 1, 1, 1, generator=generator) < _INVERTED_SHARE
    return (torch.where(inverted, 1 - moved, moved) - MEAN) / STD


def train(pictures: Pictures, *, epochs: int, seed: int, report: Callable[[int, float], None]) -> torch.nn.Module:
    """A LeNet-5 trained on ``pictures``; ``report`` gets each finished epoch (from 1) and its mean loss."""
    import torch
    from torch.nn import functional as F

    images, labels = pictures
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build_torch(10)
    steps = math.ceil(len(images) / _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(_BATCH):
            loss = F.cross_entropy(model(augment(images[chosen], generator)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        report(epoch, total / len(images))
    return model.eval()


def accuracy(model: torch.nn.Module, pictures: Pictures, *, invert: bool = False) -> float:
    """Share of ``pictures`` classified right, in 0..1."""
    import torch

    images, labels = pictures
    with torch.inference_mode():
        hits = sum(
            int((model(prepare(part, invert=invert)).argmax(1) == truth).sum())
            for part, truth in zip(images.split(2000), labels.split(2000), strict=True)
        )
    return hits / len(labels)


def save(model: torch.nn.Module, path: Path, notes: Mapping[str, str]) -> None:
    """Write the weights as safetensors with ``notes``: the whole file or none, and equal bytes for equal values.

    Raises OutputNotWritable.
    """
    from safetensors.numpy import save as to_bytes

    state = {name: value.numpy() for name, value in model.state_dict().items()}
    _write(path, _in_order(to_bytes(state, dict(notes))))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in another order in every process.

    The format: the header's length as 8 little-endian bytes, the header as JSON padded with spaces, the tensors.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def _write(path: Path, data: bytes) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
        try:
            beside.write_bytes(data)
            beside.chmod(0o644)  # tempfile's 0600 would make a bundled file unreadable to other users
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputNotWritable(f"{path}: cannot be written ({error}): choose another --out") from error


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, or the exit code of the error it printed."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Train LeNet-5 on MNIST.")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="MNIST's idx files (default: download them)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("zoo/bundled/lenet5.safetensors"))
    args = parser.parse_args(arguments)
    try:
        return _run(args)
    except EdgeZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    import torch
    from rich.progress import Progress

    if args.epochs < 1:
        raise InvalidInput(f"--epochs {args.epochs}: give 1 or more")
    if not (args.out.parent.is_dir() and os.access(args.out.parent, os.W_OK)):
        raise OutputNotWritable(f"{args.out}: no writable folder {args.out.parent}: create it or choose another --out")
    torch.set_num_threads(_THREADS)
    folder = args.data or _download()
    training, test = load_mnist(folder, "train"), load_mnist(folder, "t10k")
    with Progress() as progress:
        task = progress.add_task("training", total=args.epochs)

        def report(epoch: int, loss: float) -> None:
            progress.update(task, completed=epoch, description=f"epoch {epoch}/{args.epochs}, loss {loss:.4f}")

        model = train(training, epochs=args.epochs, seed=args.seed, report=report)
    normal, inverted = accuracy(model, test), accuracy(model, test, invert=True)
    notes = {
        "trained_on": "MNIST",
        "test_accuracy": f"{normal:.4f}",
        "test_accuracy_inverted": f"{inverted:.4f}",
        "command": f"python -m {_MODULE} --epochs {args.epochs} --seed {args.seed}",
    }
    save(model, args.out, notes)
    print(f"test accuracy {normal:.2%}, inverted {inverted:.2%}: wrote {args.out}")
    return 0


def _download() -> Path:
    """MNIST through torchvision, kept in torch's own cache."""
    import torch
    from torchvision.datasets import MNIST

    root = Path(torch.hub.get_dir()) / "edgezoo"
    try:
        return Path(MNIST(str(root), download=True).raw_folder)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(f"MNIST cannot be downloaded ({error}): give its files with --data") from error


if __name__ == "__main__":
    raise SystemExit(main())
