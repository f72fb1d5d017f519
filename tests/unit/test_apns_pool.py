"""The pool of connections to APNs: who gets a stream, and what ends all that wait for one."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.apns_far_end import *  # noqa: F403 - fixtures
from tests.support.apns_far_end import TOPIC, Corrected, h2_context, tokens_of
from tests.support.services import until
from tocsin.engine.actors.apns import ApnsPool
from tocsin.engine.actors.apns_connection import ConnectError, Endpoint
from tocsin.testing.apns import ApnsServer, Authority, Key

pytestmark = pytest.mark.asyncio


async def test_a_connection_starts_with_one_stream_and_takes_more_once_it_is_trusted(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    pool = ApnsPool(Endpoint(url=server.url, tls=h2_context(authority)), most=1)
    first = await pool.acquire()
    others = [asyncio.create_task(pool.acquire()) for _ in range(20)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in others)
    await Corrected(first.connection, await tokens_of(key).token()).send()
    assert all(slot.usable for slot in await asyncio.gather(*others))
    await pool.close()
    assert server.connected == 1


async def test_streams_that_are_given_back_go_to_those_that_wait(
    server: ApnsServer, authority: Authority
) -> None:
    pool = ApnsPool(Endpoint(url=server.url, tls=h2_context(authority)), most=1)
    first = await pool.acquire()
    given_up, waiting = (asyncio.create_task(pool.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.release()
    given_up.cancel()  # its turn came, and it is gone
    assert (await waiting).usable
    await pool.close()


async def test_a_caller_that_gives_up_while_it_connects_harms_no_other(
    server: ApnsServer, authority: Authority
) -> None:
    pool = ApnsPool(Endpoint(url=server.url, tls=h2_context(authority)))
    first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).usable
    await pool.close()
    assert server.connected == 1


async def test_a_refused_connection_ends_all_that_wait(authority: Authority, key: Key) -> None:
    async with ApnsServer(authority, key, topics={TOPIC}) as gone:
        url = gone.url
    pool = ApnsPool(Endpoint(url=url, tls=h2_context(authority)))
    results = await asyncio.gather(*(pool.acquire() for _ in range(5)), return_exceptions=True)
    assert [str(each) for each in results] == ["apns_connect_refused"] * 5
    assert {type(each) for each in results} == {ConnectError}


async def test_a_server_that_sends_no_settings(server: ApnsServer, authority: Authority) -> None:
    server.sends_settings = False
    pool = ApnsPool(Endpoint(url=server.url, tls=h2_context(authority), connect=0.2))
    with pytest.raises(ConnectError, match="apns_timeout_connect"):
        await pool.acquire()
    await until(lambda: not server.wires)


async def test_a_certificate_of_nobody_we_know(server: ApnsServer) -> None:
    pool = ApnsPool(Endpoint(url=server.url, tls=h2_context(Authority())))
    with pytest.raises(ConnectError, match="apns_tls_failed"):
        await pool.acquire()


async def test_a_server_without_http2(authority: Authority) -> None:
    context = authority.server_context("127.0.0.1")
    plain = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    url = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
    async with plain:
        pool = ApnsPool(Endpoint(url=url, tls=h2_context(authority)))
        with pytest.raises(ConnectError, match="apns_no_http2"):
            await pool.acquire()


async def test_a_host_that_is_not_there(authority: Authority) -> None:
    pool = ApnsPool(Endpoint(url="https://nowhere.invalid", tls=h2_context(authority)))
    with pytest.raises(ConnectError, match="apns_host_unknown"):
        await pool.acquire()
