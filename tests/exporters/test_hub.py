"""Weights from the frameworks' hubs, with a server on this machine in the hub's place."""

from __future__ import annotations

import gc
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters import hub as hubs
from exporters.source import Recipe, Source, Weights
from runtime.errors import InvalidWeights, WeightsUnavailable
from zoo.labels import load as labels
from zoo.models import find
from zoo.weights import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WAYS_OUT = "use --weights FILE with weights you have, or --weights none for an untrained network"


@dataclass
class Server:
    """A hub on 127.0.0.1: ``files`` by path; how it behaves; what was asked of it."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    mood: str = "good"  # "cut": closes half way; "silent": accepts and never answers
    etag: str | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            state.asked.append(f"{self.command} {self.path}")
            data = state.files.get(self.path)
            if state.mood == "silent":
                over.wait()
                self.close_connection = True
                return
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{state.etag or hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if state.mood == "cut" else data)
            if state.mood == "cut":
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        state = Server(f"http://127.0.0.1:{httpd.server_port}")
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        over.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    """An address where nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        return f"http://127.0.0.1:{closed.server_port}"


@pytest.fixture(autouse=True)
def quick_garbage() -> Iterator[None]:
    """Keras collects garbage whenever it clears its session: let it not walk through both frameworks each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this machine must not stand between a test and its server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(hubs.OFFLINE, raising=False)


@dataclass
class Hub:
    """One framework's hub, moved to a server: how to ask for weights, and what is right."""

    name: str
    framework: str
    path: str
    data: bytes
    cache: Path
    load: Callable[[], Source]
    point_to: Callable[[str], None]
    expected: str | None

    def cached(self) -> list[str]:
        """Names of the files that hold bytes in the framework's cache."""
        files = [path for path in self.cache.rglob("*") if path.is_file() and path.stat().st_size]
        return sorted(path.name for path in files if path.name not in ("keras.json", "CACHEDIR.TAG", "main"))


def recipe(name: str, framework: str, kind: str = "imagenet") -> Recipe:
    spec = find(name)
    _, variant = spec.variant(framework)
    return Recipe(
        name=name,
        builder=variant.builder,
        preprocess=variant.preprocess,
        labels=labels("imagenet"),
        weights=resolve(spec, variant, kind),
    )


@pytest.fixture
def torchvision_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch_states: dict[str, Any]) -> Hub:
    import torch
    from torchvision.models import SqueezeNet1_1_Weights

    from exporters.torch import load

    buffer = io.BytesIO()
    torch.save(torch_states["squeezenet1_1"], buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = f"/models/squeezenet1_1-{digest[:8]}.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    member = SqueezeNet1_1_Weights.IMAGENET1K_V1

    def point_to(url: str) -> None:
        monkeypatch.setattr(member, "_value_", replace(member.value, url=url + path))

    want = recipe("squeezenet1_1", "torch")
    name = "the IMAGENET1K_V1 weights of torchvision:squeezenet1_1"
    return Hub(name, "torch", path, buffer.getvalue(), tmp_path / "torch", lambda: load(want), point_to, digest)


@pytest.fixture
def timm_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch_states: dict[str, Any]) -> Hub:
    from types import SimpleNamespace

    import huggingface_hub.constants as constants
    from safetensors.torch import save

    from exporters.torch import load

    data = save(torch_states["mobilenetv1_100"])
    want = recipe("mobilenet_v1", "torch")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))

    def point_to(url: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    path = f"/{want.weights.hub}/resolve/main/model.safetensors"
    name = f"the {want.weights.hub} weights of timm:mobilenetv1_100.ra4_e3600_r224_in1k"
    digest = hashlib.sha256(data).hexdigest()
    return Hub(name, "torch", path, data, tmp_path / "hf", lambda: load(want), point_to, digest)


@pytest.fixture
def keras_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_file: bytes) -> Hub:
    from keras.src.applications import mobilenet

    from exporters.keras import load

    (tmp_path / "keras").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))  # read from it at import
    want = recipe("mobilenet_v1", "keras")

    def point_to(url: str) -> None:
        monkeypatch.setattr(mobilenet, "BASE_WEIGHT_PATH", f"{url}/mobilenet/")

    path = "/mobilenet/mobilenet_1_0_224_tf.h5"
    name = "the imagenet weights of keras:MobileNet"
    return Hub(name, "keras", path, keras_file, tmp_path / "keras", lambda: load(want), point_to, None)


@pytest.fixture(scope="module")
def torch_states() -> dict[str, Any]:
    """State dicts as the hubs have them: seeded, and not what an untrained build would give."""
    import timm
    import torch
    import torchvision

    torch.set_num_threads(1)
    torch.manual_seed(5)
    return {
        "squeezenet1_1": torchvision.models.squeezenet1_1(weights=None).state_dict(),
        "mobilenetv1_100": timm.create_model("mobilenetv1_100", pretrained=False).state_dict(),
    }


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """MobileNet's weights as Keras Applications publish them: legacy HDF5 without a model."""
    from exporters.keras import _import_keras

    keras = _import_keras()
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    path = tmp_path_factory.mktemp("keras") / "weights.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, keras.applications.MobileNet(weights=None))
    return path.read_bytes()


@pytest.fixture(params=["torchvision", "timm", "keras"])
def hub(request: pytest.FixtureRequest) -> Hub:
    found: Hub = request.getfixturevalue(f"{request.param}_hub")
    return found


def refusal(hub: Hub) -> str:
    with pytest.raises(WeightsUnavailable) as caught:
        hub.load()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what arrives


def test_torchvision_weights_arrive(torchvision_hub: Hub, server: Server, torch_states: dict[str, Any]) -> None:
    check_torch(torchvision_hub, server, torch_states["squeezenet1_1"])
    assert server.asked == [f"GET {torchvision_hub.path}"]


def test_timm_weights_arrive(timm_hub: Hub, server: Server, torch_states: dict[str, Any]) -> None:
    check_torch(timm_hub, server, torch_states["mobilenetv1_100"])
    assert {f"HEAD {timm_hub.path}", f"GET {timm_hub.path}"} <= set(server.asked)


def check_torch(hub: Hub, server: Server, state: dict[str, Any]) -> None:
    import timm
    import torch
    import torchvision

    server.files[hub.path] = hub.data
    hub.point_to(server.url)
    source = hub.load()
    assert source.weights_sha256 == hub.expected
    network = (
        timm.create_model("mobilenetv1_100", pretrained=False)
        if "timm" in hub.name
        else torchvision.models.squeezenet1_1(weights=None)
    )
    network.load_state_dict(state)
    batch = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    assert np.array_equal(source.forward(batch), expected)
    # The second time nothing is asked.
    asked = len(server.asked)
    assert hub.load().weights_sha256 == hub.expected
    assert len(server.asked) == asked > 0


def test_keras_weights_arrive(keras_hub: Hub, server: Server, tmp_path: Path) -> None:
    import h5py

    server.files[keras_hub.path] = keras_hub.data
    keras_hub.point_to(server.url)
    source = keras_hub.load()
    # Keras publishes no SHA-256: the provenance is that of every parameter, name, shape, type and value.
    digest, arrays = hashlib.sha256(), {}
    path = tmp_path / "weights.h5"
    path.write_bytes(keras_hub.data)
    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            for name in file[layer].attrs["weight_names"]:
                arrays[name] = file[layer][name][()]
    assert sum(array.size for array in arrays.values()) == 4_253_864
    for name in sorted(arrays):
        digest.update(f"{name} float32 {arrays[name].shape}".encode() + arrays[name].tobytes())
    assert source.weights_sha256 == digest.hexdigest()
    assert server.asked == [f"GET {keras_hub.path}"]
    assert keras_hub.load().weights_sha256 == digest.hexdigest()
    assert len(server.asked) == 1


@pytest.mark.slow
def test_keras_weights_at_another_size(keras_hub: Hub, server: Server) -> None:
    from exporters.keras import load

    server.files[keras_hub.path] = keras_hub.data
    keras_hub.point_to(server.url)
    at_size = recipe("mobilenet_v1", "keras")
    at_size = replace(at_size, preprocess=at_size.preprocess.at_size(96, 64))
    source = load(at_size)
    assert source.preprocess.size == (96, 64)
    assert source.weights_sha256 == keras_hub.load().weights_sha256
    assert source.forward(np.zeros((1, 3, 96, 64), np.float32)).shape == (1, 1000)


def test_keras_weights_that_depend_on_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As VGG's first dense layer does."""
    from exporters.keras import _import_keras, load

    keras = _import_keras()

    def flat(*, input_shape: tuple[int, ...] = (8, 8, 3), weights: Any = None, classes: int = 1000, **_: Any) -> Any:
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))

    flat.__module__ = "keras.src.applications.vgg16"
    monkeypatch.setattr(keras.applications, "Flat", flat, raising=False)
    want = replace(recipe("mobilenet_v1", "keras"), builder="keras:Flat")
    assert load(replace(want, preprocess=want.preprocess.at_size(8, 8))).weights_sha256
    with pytest.raises(InvalidWeights, match=r"do not fit pictures of \(12, 8\) .*leave --input-size out"):
        load(replace(want, preprocess=want.preprocess.at_size(12, 8)))


def test_imagenet_weights_and_other_labels(torchvision_hub: Hub, keras_hub: Hub, server: Server) -> None:
    from exporters.keras import load as load_keras
    from exporters.torch import load as load_torch

    server.files[torchvision_hub.path] = torchvision_hub.data
    torchvision_hub.point_to(server.url)
    few = labels("digits")
    with pytest.raises(InvalidWeights, match=r"squeezenet1_1 with 10 labels.*\[1000, 512, 1, 1\] instead of \[10, 512"):
        load_torch(replace(recipe("squeezenet1_1", "torch"), labels=few))
    with pytest.raises(InvalidWeights, match="1000 classes, the labels are 10"):
        load_keras(replace(recipe("mobilenet_v1", "keras"), labels=few))


# ---- what goes wrong


def test_not_found(hub: Hub, server: Server) -> None:
    hub.point_to(server.url)
    message = refusal(hub)
    assert "404" in message
    assert message.startswith(f"cannot get {hub.name} (")
    assert message.endswith(WAYS_OUT)
    assert hub.cached() == []


def test_connection_refused(hub: Hub, nowhere: str) -> None:
    hub.point_to(nowhere)
    message = refusal(hub)
    assert "refused" in message
    assert message.endswith(WAYS_OUT)
    assert hub.cached() == []


def test_closed_in_the_middle(hub: Hub, server: Server) -> None:
    server.files[hub.path], server.mood = hub.data, "cut"
    hub.point_to(server.url)
    message = refusal(hub)
    assert message.startswith(f"cannot get {hub.name} (")
    assert message.endswith(WAYS_OUT)
    assert [name for name in hub.cached() if not name.endswith(".incomplete")] == []
    # The next attempt starts from what is good.
    server.mood = "good"
    assert hub.load().weights_sha256


def test_silence_has_an_end(hub: Hub, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files[hub.path], server.mood = hub.data, "silent"
    hub.point_to(server.url)
    monkeypatch.setattr(hubs, "TIMEOUT", 0.05)
    message = refusal(hub)
    assert "timed out" in message
    assert message.endswith(WAYS_OUT)


def test_clock_and_switch_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import urllib.request

    monkeypatch.setenv(hubs.OFFLINE, "1")
    before = socket.getdefaulttimeout(), urllib.request._opener  # type: ignore[attr-defined]
    with pytest.raises(WeightsUnavailable, match="a bug"), hubs.reaching("x"):
        assert socket.getdefaulttimeout() == hubs.TIMEOUT
        raise ValueError("a bug\nof two lines")
    assert (socket.getdefaulttimeout(), urllib.request._opener) == before  # type: ignore[attr-defined]


def test_torchvision_wrong_checksum(torchvision_hub: Hub, server: Server) -> None:
    server.files[torchvision_hub.path] = torchvision_hub.data[:-1] + b"x"
    torchvision_hub.point_to(server.url)
    message = refusal(torchvision_hub)
    assert "invalid hash value" in message
    assert message.endswith(WAYS_OUT)
    assert torchvision_hub.cached() == []


def test_timm_wrong_checksum(timm_hub: Hub, server: Server) -> None:
    server.files[timm_hub.path] = timm_hub.data
    server.etag = "0" * 64
    timm_hub.point_to(server.url)
    message = refusal(timm_hub)
    assert "the SHA-256 of what arrived is not the hub's" in message
    assert message.endswith(WAYS_OUT)
    assert timm_hub.cached() == []


def test_keras_wrong_checksum(keras_hub: Hub, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNetV3 is a row with a checksum; what does not fit it never reaches HDF5."""
    from keras.src.applications import mobilenet_v3

    from exporters.keras import load

    name = "weights_mobilenet_v3_small_224_1.0_float.h5"
    server.files[f"/v3/{name}"] = keras_hub.data
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", f"{server.url}/v3/")
    with pytest.raises(WeightsUnavailable, match=r"corrupted.*--weights none") as caught:
        load(recipe("mobilenet_v3_small", "keras"))
    assert "\n" not in str(caught.value)
    # Keras leaves the file, and asks again instead of using it.
    with pytest.raises(WeightsUnavailable, match="corrupted"):
        load(recipe("mobilenet_v3_small", "keras"))
    assert server.asked == [f"GET /v3/{name}"] * 2


@pytest.mark.parametrize("which", ["torchvision", "timm"])
def test_damaged_in_the_cache(which: str, request: pytest.FixtureRequest, server: Server) -> None:
    hub: Hub = request.getfixturevalue(f"{which}_hub")
    server.files[hub.path] = hub.data
    hub.point_to(server.url)
    hub.load()
    (cached,) = (path for path in hub.cache.rglob("*") if path.is_file() and path.stat().st_size == len(hub.data)
                 and not path.is_symlink())  # fmt: skip
    cached.write_bytes(hub.data[:-1] + b"x")
    message = refusal(hub)
    assert f"{cached}: damaged in the cache" in message
    assert message.endswith("delete it")
    cached.unlink()
    assert hub.load().weights_sha256 == hub.expected


def test_keras_half_a_file_in_the_cache(keras_hub: Hub, server: Server) -> None:
    """MobileNet has no checksum in Keras: a download that was killed looks like a finished one."""
    cached = keras_hub.cache / "models" / Path(keras_hub.path).name
    cached.parent.mkdir()
    cached.write_bytes(keras_hub.data[: len(keras_hub.data) // 2])
    keras_hub.point_to(server.url)
    message = refusal(keras_hub)
    assert f"{cached.parent} cannot be read (" in message
    assert "delete that file" in message


# ---- offline


def test_offline_asks_nobody(hub: Hub, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files[hub.path] = hub.data
    hub.point_to(server.url)
    monkeypatch.setenv(hubs.OFFLINE, "1")
    assert refusal(hub) == f"cannot get {hub.name} (not in the cache, and EDGEZOO_OFFLINE is set): {WAYS_OUT}"
    assert server.asked == []
    monkeypatch.setenv(hubs.OFFLINE, "0")
    digest = hub.load().weights_sha256
    asked = len(server.asked)
    assert asked > 0
    # What is in the framework's cache needs no network.
    monkeypatch.setenv(hubs.OFFLINE, "1")
    assert hub.load().weights_sha256 == digest
    assert len(server.asked) == asked


def test_the_command_says_it_in_one_line(
    hub: Hub, nowhere: str, tmp_path: Path, zoo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "squeezenet1_1" if "torchvision" in hub.name else "mobilenet_v1"
    hub.point_to(nowhere)
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = zoo("export", name, "--source", hub.framework)
    assert done.code == 2
    assert done.err.startswith(f"zoo: error: cannot get {hub.name} (")
    assert done.err.endswith(f"{WAYS_OUT}\n")
    assert done.err.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_networks_of_no_hub() -> None:
    from exporters.keras import load as load_keras
    from exporters.torch import load as load_torch

    for load, framework in ((load_torch, "torch"), (load_keras, "keras")):
        lenet = find("lenet5").variant(framework)[1]
        want = Recipe(
            name="lenet5",
            builder=lenet.builder,
            preprocess=lenet.preprocess,
            labels=labels("digits"),
            weights=Weights(kind="imagenet", hub="somewhere"),
        )
        with pytest.raises(WeightsUnavailable, match="has no published weights: use --weights FILE or"):
            load(want)
