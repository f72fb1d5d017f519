"""The service in a process of its own, with clients for it and the events of its streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import jwt

from tests.support.forked import run_tocsin
from tests.support.services import LONGEST, SECRET, Service, free_port, running, until


class House:
    """A running service, with clients for it."""

    def __init__(self, settings: dict[str, str], http: Service) -> None:
        self.settings = settings
        self.http = http
        self.url = settings["public_url"]

    def cli(self, *arguments: str) -> str:
        """Returns the last line that a command prints."""
        return self.print(*arguments).splitlines()[-1]

    def print(self, *arguments: str) -> str:
        environ = {f"TOCSIN_{name.upper()}": value for name, value in self.settings.items()}
        done = run_tocsin(*arguments, environ=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def person(self, name: str, token: str = "") -> httpx.AsyncClient:
        token = token or jwt.encode({"sub": name, "exp": int(time.time() + 600)}, SECRET, "HS256")
        return self._client(token)

    def app(self) -> httpx.AsyncClient:
        key = self.cli("api-key", "create", "tests")
        return self._client(key)

    def _client(self, credentials: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {credentials}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=LONGEST)


class Stream:
    """The events of an open SSE response, read as they come."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def read(self, response: httpx.Response) -> None:
        name = ""
        with suppress(httpx.TransportError):
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self._events.put_nowait((name, line.removeprefix("data: ")))

    async def event(self, name: str, seconds: float = LONGEST) -> str:
        """Returns the data of the next event with this name."""
        async with asyncio.timeout(seconds):
            while True:
                came, data = await self._events.get()
                if came == name:
                    return data


@asynccontextmanager
async def following(client: httpx.AsyncClient) -> AsyncIterator[Stream]:
    async with client.stream("GET", "/api/notifications/stream/", timeout=None) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream()
        reading = asyncio.create_task(stream.read(response))
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def house(
    dsn: str, folder: Path, *command: str, port: str = "", **more: str
) -> AsyncIterator[House]:
    port = port or str(free_port())
    settings = {
        "database_url": dsn,
        "data_dir": str(folder),
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "jwt_secret": SECRET,
        **more,
    }
    command = command or ("serve",)
    async with running(*command, log=folder / "http.log", settings=settings) as http:
        await until(lambda: responds(settings["public_url"]))
        yield House(settings, http)


async def responds(url: str) -> bool:
    async with httpx.AsyncClient(timeout=LONGEST) as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False
