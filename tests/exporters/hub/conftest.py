"""A server on this machine in each hub's place, with weights of its own."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exporters import hub as hubs
from tests.exporters.hub.support import COMMIT, Hub, Server, recipe


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
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this machine must not stand between a test and its server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(hubs.OFFLINE, raising=False)


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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
