"""Which URLs that others chose are connected to: public addresses over https, however they are written or named."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tocsin.engine.actors.machinery.endpoints import (
    is_public,
    resolved_url_fault,
    url_fault,
)
from tocsin.engine.actors.machinery.http_actor import ForbiddenAddressError, PublicResolver


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://hooks.example.com/a?b=c", None),
        ("https://hooks.example.com:8443/", None),
        ("https://1.1.1.1/", None),
        ("https://[2606:4700::1111]/", None),
        ("http://hooks.example.com/", "url_not_https"),
        ("ftp://hooks.example.com/", "url_invalid"),
        ("file:///etc/passwd", "url_invalid"),
        ("hooks.example.com", "url_invalid"),
        ("https://", "url_invalid"),
        ("https://h:99999/", "url_invalid"),
        ("https://[::1", "url_invalid"),
        ("https://user:pass@hooks.example.com/", "url_invalid"),
        ("https://:pass@hooks.example.com/", "url_invalid"),
        ("https://127.0.0.1/", "address_forbidden"),
        ("https://10.1.2.3/", "address_forbidden"),
        ("https://169.254.169.254/latest/meta-data", "address_forbidden"),
        ("https://[::1]/", "address_forbidden"),
        ("https://[::ffff:10.0.0.1]/", "address_forbidden"),
    ],
)
def test_urls_that_are_posted_to(url: str, fault: str | None) -> None:
    assert url_fault(url, allow_loopback=False) == fault


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_addresses_that_are_nobody_elses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Lets each name resolve to these addresses."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_one_private_address_among_public_ones_spoils_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(ForbiddenAddressError):
        await PublicResolver().resolve("both.example.com", 443)


@pytest.mark.parametrize(
    ("addresses", "fault"),
    [
        (("1.1.1.1",), None),
        (("1.1.1.1", "10.0.0.1"), "address_forbidden"),
        (("169.254.169.254",), "address_forbidden"),
        ((), "host_unknown"),
    ],
)
async def test_a_name_is_resolved_as_it_is_registered(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], fault: str | None
) -> None:
    resolves_to(monkeypatch, *addresses)
    assert await resolved_url_fault("https://hooks.example.com/", allow_loopback=False) == fault


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[fd00::1]", "0.0.0.0", "127.1"])
async def test_development_allows_this_machine_and_no_private_network(host: str) -> None:
    fault = await resolved_url_fault(f"http://{host}/", allow_loopback=True)
    assert fault == "address_forbidden"


async def test_a_name_of_a_private_network_is_refused_in_development_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, "127.0.0.1", "10.0.0.1")
    assert await resolved_url_fault("http://both.test/", allow_loopback=True) == "address_forbidden"
    with pytest.raises(ForbiddenAddressError):
        await PublicResolver(allow_loopback=True).resolve("both.test", 80)


async def test_loopback_by_plain_http_is_for_development() -> None:
    assert await resolved_url_fault("http://127.0.0.1:80/", allow_loopback=True) is None
    assert await resolved_url_fault("http://127.0.0.1:80/", allow_loopback=False) == "url_not_https"
    assert await resolved_url_fault("gopher://a.test/", allow_loopback=True) == "url_invalid"
