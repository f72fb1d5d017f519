"""APNs and FCM of `tocsin up`, in its own process: what arrives is kept for the page's phones.

Importing this imports all of `tocsin.testing`, which takes half a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tocsin.phones import FILE, Arrival, Phones
from tocsin.push_access import ApnsAccess, FcmAccess
from tocsin.secret_file import SecretFileError, write_secret
from tocsin.testing.apns import ApnsServer, Authority, Key, Received
from tocsin.testing.fcm import Arrived, FcmServer
from tocsin.testing.oauth import new_private_key
from tocsin.up.arrivals import of_apns, of_fcm
from tocsin.up.supervisor import Say

FOLDER = "far-ends"
TOPIC = "org.example.tocsin"
KEY_ID, TEAM_ID = "DEMOKEY123", "DEMOTEAM12"
PROJECT_ID = "tocsin-demo"
STOP_SECONDS = 0.5


class FarEnds:
    """At most one of each. Making it takes a moment and blocks; raises OSError and SecretFileError.

    The keys that Apple and Google would hand out are made once. The authority behind APNs' certificate is new each
    time, so its own key is written nowhere.
    """

    def __init__(self, data_dir: Path, *, apns: bool, fcm: bool, say: Say) -> None:
        self._phones = Phones(data_dir / FILE)
        self._say = say
        folder = data_dir / FOLDER
        if apns or fcm:
            folder.mkdir(mode=0o700, exist_ok=True)
        self._apns_key = folder / "apns-key.p8"
        self._ca_file = folder / "apns-ca.pem"
        self._fcm_key = folder / "fcm-key.pem"
        self._account = folder / "fcm-service-account.json"
        self._apns = self._make_apns() if apns else None
        self._fcm = self._make_fcm() if fcm else None

    async def start(self) -> tuple[ApnsAccess | None, FcmAccess | None]:
        """Listens on free ports of this machine; answers how each is reached."""
        return await self._start_apns(), await self._start_fcm()

    async def stop(self) -> None:
        """Hangs up on everybody."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(end.stop() for end in (self._apns, self._fcm) if end))

    def _make_apns(self) -> ApnsServer:
        authority = Authority()
        authority.write(self._ca_file)
        pem = _kept(self._apns_key, lambda: Key.new().private)
        try:
            key = Key(pem, KEY_ID, TEAM_ID)
            return ApnsServer(authority, key, topics={TOPIC}, keep=1, on_arrival=self._on_apns)
        except ValueError:
            raise _no_key(self._apns_key) from None

    def _make_fcm(self) -> FcmServer:
        pem = _kept(self._fcm_key, new_private_key)
        try:
            return FcmServer(
                project_id=PROJECT_ID, private_key=pem, keep=1, on_arrival=self._on_fcm
            )
        except ValueError:
            raise _no_key(self._fcm_key) from None

    async def _start_apns(self) -> ApnsAccess | None:
        if self._apns is None:
            return None
        await self._apns.start()
        return ApnsAccess(
            url=self._apns.url,
            key=str(self._apns_key),
            key_id=KEY_ID,
            team_id=TEAM_ID,
            topic=TOPIC,
            ca_file=str(self._ca_file),
        )

    async def _start_fcm(self) -> FcmAccess | None:
        if self._fcm is None:
            return None
        await self._fcm.start()
        # anew each time, since it names the port that tokens are to be had at
        write_secret(self._account, self._fcm.service_account_json.encode())
        return FcmAccess(url=self._fcm.url, service_account=str(self._account))

    def _on_apns(self, received: Received) -> None:
        if received.status == 200:
            self._keep(of_apns(received, datetime.now(UTC)))

    def _on_fcm(self, arrived: Arrived) -> None:
        if arrived.answered == 200:
            self._keep(of_fcm(arrived))

    def _keep(self, arrival: Arrival) -> None:
        try:
            self._phones.keep(arrival)
        except OSError as error:  # the push did arrive; only the page can't show it
            self._say(f"{FILE} can't be written: {error.strerror}")


def _kept(file: Path, make: Callable[[], str]) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        made = make()
        write_secret(file, made.encode())
        return made
    except UnicodeDecodeError:
        raise _no_key(file) from None


def _no_key(file: Path) -> SecretFileError:
    return SecretFileError(f"{file} holds no key: begin anew with make reset")
