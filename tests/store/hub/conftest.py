"""A Hub on this machine, and processes that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store.hub.client import Client
from store.hub.server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def start(hub: Hub, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts processes with the same cache; options of `Client`."""
    running = []

    def make(url: str | None = None, **more: str | None) -> Client:
        running.append(Client(url or hub.url, tmp_path / "home", **more))
        return running[-1]

    yield make
    for client in running:
        client.kill()


@pytest.fixture
def client(start: Callable[..., Client]) -> Client:
    return start()
