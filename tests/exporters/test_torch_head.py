"""Where PyTorch networks end: softmax and sigmoid come off exactly or are refused; tasks, labels and features."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from exporters.torch import load
from runtime.errors import InvalidInput, InvalidWeights
from runtime.metadata import Labels
from tests.exporters.torch_support import BATCH, Tiny, answer, loaded, named, recipe, seeded

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def ending(end: nn.Module | None, outputs: int = 4) -> Callable[[], nn.Module]:
    return lambda: seeded(Tiny(outputs, end))


# ---- what comes off


@pytest.mark.parametrize(
    ("end", "outputs", "task"),
    [
        (None, 4, "classification"),
        (None, 1, "binary"),
        (nn.Softmax(dim=1), 4, "classification"),
        (nn.Softmax(dim=-1), 2, "classification"),
        (nn.LogSoftmax(dim=1), 4, "classification"),
        (nn.Sigmoid(), 1, "binary"),
        (nn.Sigmoid(), 4, "multilabel"),
        (nn.Sequential(nn.Dropout(), nn.Softmax(1)), 3, "classification"),
    ],
)
def test_an_end_that_comes_off(end: nn.Module | None, outputs: int, task: str) -> None:
    source = loaded(ending(end, outputs))
    np.testing.assert_array_equal(source.forward(BATCH), answer(ending(None, outputs)().logits))
    assert source.task == task
    assert len(source.labels.names) == (2 if outputs == 1 else outputs)


def functional(end: Callable[[Any], Any], outputs: int = 4) -> Callable[[], nn.Module]:
    class Net(Tiny):
        def forward(self, batch: torch.Tensor) -> Any:
            return end(self.logits(batch))

    return lambda: seeded(Net(outputs))


def test_functional_log_softmax_is_as_good_as_logits() -> None:
    source = loaded(functional(lambda logits: F.log_softmax(logits, dim=1)))
    expected = answer(functional(lambda logits: F.softmax(logits, dim=1))())
    np.testing.assert_allclose(np.exp(source.forward(BATCH)), expected, rtol=1e-6)
    assert source.task == "classification"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "functional softmax": (functional(lambda x: F.softmax(x, dim=1)), "ends in a softmax inside its forward"),
    "functional sigmoid": (functional(torch.sigmoid), "ends in a sigmoid inside its forward"),
    "functional sigmoid of one": (functional(torch.sigmoid, 1), "ends in a sigmoid inside its forward"),
    "in place": (functional(lambda x: x.sigmoid_()), "ends in a sigmoid inside its forward"),
    "through a view": (functional(lambda x: F.softmax(x, 1).reshape(-1, 4)), "ends in a softmax inside its forward"),
    "by hand": (functional(lambda x: x.exp() / x.exp().sum(1, keepdim=True)), "gives probabilities"),
    "over the batch": (ending(nn.Softmax(dim=0)), "taking off its softmax changes its answers"),
    "squeezed": (functional(lambda x: x.squeeze(1), 1), r"gives \[2\] for 2 pictures, not one row of scores"),
    "map": (functional(lambda x: x[..., None, None]), r"gives \[2, 4, 1, 1\] for 2 pictures"),
    "one row": (functional(lambda x: x[:1]), r"gives \[1, 4\] for 2 pictures"),
    "integers": (functional(lambda x: x.argmax(1, keepdim=True)), r"gives \[2, 1\] for 2 pictures"),
    "two tensors": (functional(lambda x: (x, x * 2)), r"gives 2 tensors \(0, 1\): let it return the logits alone"),
    "nothing": (functional(lambda x: None), "gives 0 tensors"),
    "one channel": (lambda: nn.Sequential(nn.Conv2d(1, 4, 16), nn.Flatten()), "does not run on an input of 2x3x16x16"),
    "text": (lambda: "resnet", "returns str, not a torch.nn.Module"),
    "function": (lambda: F.relu, "not a torch.nn.Module"),
    "script": (lambda: torch.jit.trace(Tiny(), torch.zeros(1, 3, 16, 16)), "TorchScript: let it return the module"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(InvalidInput, match=message) as told:
        loaded(make)
    assert "\n" not in str(told.value)


def test_a_softmax_that_is_used_twice() -> None:
    class Net(Tiny):
        def forward(self, batch: torch.Tensor) -> Any:
            gate = self.end(self.features(batch).mean((2, 3)))
            return self.end(self.head(gate))

    with pytest.raises(InvalidInput, match="its last Sigmoid is used elsewhere too"):
        loaded(lambda: seeded(Net(4, nn.Sigmoid())))


@pytest.mark.slow
def test_a_keras_model_is_sent_to_its_source(keras: Any) -> None:
    with pytest.raises(InvalidInput, match="returns a keras model: use --source keras"):
        loaded(lambda: keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()]))


def test_a_network_instead_of_a_function() -> None:
    with pytest.raises(InvalidInput, match="is a network, not a function"):
        load(recipe("tests.exporters.torch_support:NETWORK"))


# ---- what networks return


@dataclass
class Output:
    """As in transformers: logits among other tensors."""

    loss: Any
    logits: Any
    hidden: Any


Pair = namedtuple("Pair", ["logits", "aux"])

RETURNED: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda x: (x,),
    "list in a tuple": lambda x: ([x],),
    "dictionary": lambda x: {"anything": x},
    "logits among others": lambda x: {"logits": x, "probabilities": F.softmax(x, 1)},
    "out among others": lambda x: {"out": x, "aux": x * 2},
    "dataclass": lambda x: Output(None, x, x * 2),
    "named tuple": lambda x: Pair(x, x * 2),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_the_scores_are_picked(kind: str) -> None:
    source = loaded(functional(RETURNED[kind]))
    np.testing.assert_array_equal(source.forward(BATCH), answer(ending(None)().logits))
    assert source.features(BATCH).shape == (3, 5)
    assert source.task == "classification"


def test_layers_keep_their_names_where_scores_are_picked() -> None:
    proto = loaded(functional(lambda x: {"out": x})).convert(18, None)
    assert {"features.0", "features.2", "head"} <= {node.name for node in proto.graph.node}


# ---- tasks and labels


@pytest.mark.parametrize(
    ("end", "outputs", "changes", "error", "message"),
    [
        (None, 4, {"labels": named(3)}, InvalidWeights, "the network has 4 outputs, the labels are 3"),
        (None, 1, {"labels": named(3)}, InvalidWeights, "has 1 outputs, the labels are 3: name the two answers"),
        (None, 4, {"task": "binary"}, InvalidInput, "has 4 outputs, a binary one has 1"),
        (nn.Sigmoid(), 4, {"task": "classification"}, InvalidInput, "ends in a sigmoid, and so cannot be"),
        (nn.Softmax(1), 4, {"task": "multilabel"}, InvalidInput, "ends in a softmax, and so cannot be a multilabel"),
        (nn.Softmax(1), 1, {}, InvalidInput, "ends in a softmax, and so cannot be a binary of 1 outputs"),
    ],
)  # fmt: skip
def test_what_does_not_agree(
    end: nn.Module | None, outputs: int, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loaded(ending(end, outputs), **changes)


def test_labels_in_their_order() -> None:
    labels = Labels(("cat", "dog"))
    assert loaded(ending(None, 1), labels=labels).labels == labels
    assert loaded(ending(None, 1), labels=labels).task == "binary"
    assert loaded(ending(None, 2), labels=labels).task == "classification"
    assert loaded(ending(None, 2), labels=labels, task="multilabel").task == "multilabel"
    assert loaded(ending(None, 1)).labels == Labels(("no", "yes"))
    assert loaded(ending(None, 3)).labels == Labels(("class 0", "class 1", "class 2"))


# ---- features


def test_features_are_what_the_last_layer_takes_in() -> None:
    source, network = loaded(ending(nn.Softmax(1))), ending(None)()
    np.testing.assert_array_equal(source.features(BATCH), answer(lambda x: network.features(x).mean((2, 3))))
    with torch.inference_mode():
        again = network.head(torch.from_numpy(source.features(BATCH)))
    np.testing.assert_allclose(again.numpy(), source.forward(BATCH), rtol=1e-6)


def test_features_of_a_convolution_are_averaged() -> None:
    def make() -> nn.Module:
        layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return seeded(nn.Sequential(*layers))

    expected = answer(lambda x: make()[:2](x).mean((2, 3)))
    np.testing.assert_allclose(loaded(make).features(BATCH), expected, rtol=1e-6)


def test_features_of_a_linear_layer_on_a_map() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 4)

        def forward(self, batch: torch.Tensor) -> Any:
            return self.head(self.conv(batch).permute(0, 2, 3, 1)).mean((1, 2))

    expected = answer(lambda x: seeded(Net()).conv(x).mean((2, 3)))
    np.testing.assert_allclose(loaded(lambda: seeded(Net())).features(BATCH), expected, rtol=1e-5, atol=1e-6)


def test_networks_without_features() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 4)

        def forward(self, batch: torch.Tensor) -> Any:
            return self.head(batch.flatten(1, 2)).mean(1)

    with pytest.raises(InvalidInput, match=r"its last layer takes \[3, 48, 16\]: no one row of features"):
        loaded(lambda: seeded(Tokens())).features(BATCH)
    with pytest.raises(InvalidInput, match="no layer with weights"):
        loaded(lambda: nn.Flatten()).features(BATCH)
