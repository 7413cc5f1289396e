"""What goes wrong between a hub and its weights is one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters import hub as hubs
from exporters.source import Recipe, Weights
from runtime.errors import WeightsUnavailable
from tests.exporters.hub.support import WAYS_OUT, Hub, Server, recipe, refusal
from zoo.labels import load as labels
from zoo.models import find

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
