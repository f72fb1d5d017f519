"""Network namespaces as hosts: what their processes send to each other goes over a bridge.

All programs use 127.0.0.1, as without namespaces. Each host has a range of ports, and the other hosts translate
127.0.0.1 with a port of that range to the host's address; the host itself translates it back. So settings, certificates
and access rules are the same on one host and on several. It needs root, and `ip` and `iptables`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

_PREFIX = "tocsin-"  # of their names; the process that made them follows
_NETWORK = "10.77.0"
_NEW_NETWORK = 0x4000_0000  # CLONE_NEWNET
_FIRST_PORT, _PORTS = 33_000, 3_000
_OF_POSTGRES = range(15_432, 32_000)  # as in tocsin/dev/embedded_postgres.py
_libc = ctypes.CDLL(None, use_errno=True)


class Hosts(Struct, frozen=True):
    """The hosts by name; there are none on loopback."""

    names: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """What is between the processes."""
        return "a bridge" if self.names else "loopback"

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Runs the block on that host: what it starts and connects is there."""
        if not self.names:
            yield
            return
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(os.open(_path(name), os.O_RDONLY))
            yield
        finally:
            _enter(before)


@contextmanager
def hosts(first: str, *others: str) -> Iterator[Hosts]:
    """Makes the hosts and removes them at the end; the first one has the ports that PostgreSQL chooses from.

    Where the program may not make them, there are none and all runs on loopback.
    """
    if missing := _missing():
        print(f"All processes are on loopback: {missing}.", file=sys.stderr)
        yield Hosts()
        return
    names = (first, *others)
    _remove_left()
    with ExitStack() as stack:
        _make(stack, "bridge")
        _ip("-n", _full("bridge"), "link", "add", "br0", "type", "bridge")
        _ip("-n", _full("bridge"), "link", "set", "br0", "up")
        for number, name in enumerate(names, 1):
            _make(stack, name)
            _connect(name, number)
        for name in names:
            _translate(name, names)
        yield Hosts(names)


def _missing() -> str:
    """Returns what network namespaces lack here; empty if nothing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "iptables", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    tried = subprocess.run(["unshare", "--net", "iptables", "-t", "nat", "-L"], capture_output=True)
    return "this system allows no network namespaces" if tried.returncode else ""


def _remove_left() -> None:
    """Removes the namespaces of runs that were killed."""
    for path in Path("/run/netns").glob(f"{_PREFIX}[0-9]*-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            _ip("netns", "delete", path.name)


def _make(stack: ExitStack, name: str) -> None:
    """Adds a namespace, until the stack ends."""
    _ip("netns", "add", _full(name))
    stack.callback(_ip, "netns", "delete", _full(name))
    _ip("-n", _full(name), "link", "set", "lo", "up")


def _connect(name: str, number: int) -> None:
    """Connects it to the bridge by a pair of interfaces."""
    bridge, port = _full("bridge"), f"port{number}"
    pair = ("eth0", "netns", _full(name), "type", "veth", "peer", "name", port)
    _ip("link", "add", *pair, "netns", bridge)
    _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
    _ip("-n", _full(name), "address", "add", f"{_address(number)}/24", "dev", "eth0")
    _ip("-n", _full(name), "link", "set", "eth0", "up")
    first, last = _ports(number)
    _set(name, "conf/all/route_localnet", "1")
    # what a program listens on by chance is in the range of its host
    _set(
        name, "ip_local_port_range", f"{max(first, _FIRST_PORT)} {max(last, _FIRST_PORT + _PORTS)}"
    )


def _translate(name: str, names: tuple[str, ...]) -> None:
    """Makes 127.0.0.1 lead to the host that has the port, and come from 127.0.0.1 there."""
    for number, other in enumerate(names, 1):
        if other != name:
            ports = ":".join(str(each) for each in _ports(number))
            to = ("-j", "DNAT", "--to-destination", _address(number))
            _rule(name, "OUTPUT", "--destination", "127.0.0.1", "-p", "tcp", "--dport", ports, *to)
    _rule(name, "POSTROUTING", "--out-interface", "eth0", "-j", "MASQUERADE")
    _rule(
        name, "PREROUTING", "-i", "eth0", "-p", "tcp", "-j", "DNAT", "--to-destination", "127.0.0.1"
    )
    _rule(name, "INPUT", "-i", "eth0", "-p", "tcp", "-j", "SNAT", "--to-source", "127.0.0.1")


def _ports(number: int) -> tuple[int, int]:
    """Returns the first and the last port of a host."""
    if number == 1:
        return _OF_POSTGRES[0], _OF_POSTGRES[-1]
    first = _FIRST_PORT + number * _PORTS
    return first, first + _PORTS - 1


def _address(number: int) -> str:
    return f"{_NETWORK}.{number}"


def _full(name: str) -> str:
    return f"{_PREFIX}{os.getpid()}-{name.replace(' ', '-')}"


def _path(name: str) -> Path:
    return Path("/run/netns") / _full(name)


def _set(name: str, setting: str, value: str) -> None:
    """Writes a setting of the namespace's network; /proc/sys shows that of the thread."""
    with Hosts((name,)).at(name):
        Path("/proc/sys/net/ipv4", setting).write_text(value)


def _rule(name: str, chain: str, *rule: str) -> None:
    _run("ip", "netns", "exec", _full(name), "iptables", "-t", "nat", "-A", chain, *rule)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    # in a session of its own: Ctrl-C interrupts this program alone, which then removes the hosts
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


def _enter(handle: int) -> None:
    """Moves this thread into a namespace, and closes the handle."""
    try:
        if _libc.setns(handle, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)
