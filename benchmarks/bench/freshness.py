"""Whether a count over HTTP is right, and whether the next request sees a commit of another process."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Thread

import httpx
import psycopg

from bench.service import bearer


def check_counts(url: str, dsn: str, people: Sequence[str]) -> None:
    """Ends the benchmark if a contender has another count."""
    with psycopg.connect(dsn) as connection, httpx.Client() as client:
        for person in people[:50]:
            response = client.get(url, headers=bearer(person))
            row = connection.execute("select tocsin.unread_count(%s)", (person,)).fetchone()
            if row is None or response.json()["count"] != row[0]:
                raise SystemExit(f"{url} returned {response.text} for {person}, not {row}")


class Freshness:
    """Commits from this process and requests the count at once, while the block runs."""

    def __init__(self, dsn: str, url: str) -> None:
        self.looks = self.late = 0
        self._dsn, self._url = dsn, url
        self._done = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        with (
            psycopg.connect(self._dsn, autocommit=True) as app,
            httpx.Client(headers=bearer("fresh")) as client,
        ):
            app.execute("select tocsin.upsert_recipient('fresh')")
            while not self._done.is_set():
                app.execute("select tocsin.notify('forum.new_thread', array['fresh'], 'x')")
                self.looks += 1
                self.late += client.get(self._url).json()["count"] != self.looks
