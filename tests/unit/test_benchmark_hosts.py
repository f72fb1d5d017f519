"""The hosts of a benchmark: network namespaces as root, and else loopback; both with the same addresses."""

from __future__ import annotations

import importlib
import os
import socket
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
NAMES = ("one", "two", "three")


def namespaces() -> set[str]:
    folder = Path("/run/netns")
    return (
        {each for each in os.listdir(folder) if f"-{os.getpid()}-" in each}
        if folder.exists()
        else set()
    )


def test_each_host_reaches_what_listens_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("bench.hosts")
    before = os.readlink("/proc/thread-self/ns/net")

    with module.hosts(*NAMES) as hosts:
        for there in NAMES:
            # the first host has the ports of PostgreSQL, and the others what the system chooses
            ports = range(15_500, 15_600) if there == NAMES[0] else [0]
            with hosts.at(there), listening(ports) as listener:
                for here in NAMES:
                    with hosts.at(here):
                        assert reply(listener) == "127.0.0.1"
        made = namespaces()

    assert len(made) == (len(NAMES) + 1 if hosts.names else 0)  # and the bridge
    assert namespaces() == set()
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_hosts_are_removed_where_the_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("bench.hosts")

    with pytest.raises(KeyboardInterrupt), module.hosts(*NAMES):
        raise KeyboardInterrupt

    assert namespaces() == set()


def listening(ports: range | list[int]) -> socket.socket:
    for port in ports:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise OSError("no free port")


def reply(listener: socket.socket) -> str:
    """Connects to it, and returns from where it sees the connection come."""
    with socket.create_connection(listener.getsockname(), timeout=5):
        accepted, address = listener.accept()
        accepted.close()
    return str(address[0])
