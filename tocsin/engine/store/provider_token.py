"""The APNs token that all workers share."""

from __future__ import annotations

from tocsin.engine.model import SignedToken
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("provider_token")


class SharedTokens:
    """The token store of the actors, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, key: str) -> SignedToken | None:
        """The token of this key that stands."""
        return await self._database.row(SignedToken, _SQL["load_token"], key=key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores it if `replacing` still stands, and returns what stands then."""
        await self._database.run(
            _SQL["save_token"],
            key=signed.key,
            token=signed.token,
            issued_at=signed.issued_at,
            early=signed.early,
            replacing=replacing and replacing.token,
        )
        return await self.load(signed.key) or signed
