"""How the far ends of a running `tocsin up` are reached: told by its lock file, so by paths, without any secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tocsin.settings.apns_key import ApnsKey


class ApnsAccess(Struct, frozen=True, kw_only=True):
    """APNs' far end, with the key that it knows and the certificate to trust it by."""

    url: str
    key: str  # a path, as is ca_file
    key_id: str
    team_id: str
    topic: str
    ca_file: str

    @property
    def environ(self) -> dict[str, str]:
        """For a child process."""
        return {
            "TOCSIN_APNS_KEY": self.key,
            "TOCSIN_APNS_KEY_ID": self.key_id,
            "TOCSIN_APNS_TEAM_ID": self.team_id,
            "TOCSIN_APNS_TOPIC": self.topic,
            "TOCSIN_APNS_URL": self.url,
            "TOCSIN_APNS_CA_FILE": self.ca_file,
        }

    def settings(self) -> dict[str, object]:
        """The fields of Settings, read without a check, which would take its time; raises OSError."""
        pem = Path(self.key).read_text()
        return {
            "apns": ApnsKey(pem, self.key_id, self.team_id, self.topic),
            "apns_url": self.url,
            "apns_ca_file": Path(self.ca_file),
        }


class FcmAccess(Struct, frozen=True, kw_only=True):
    """FCM's far end, with the service account that it knows."""

    url: str
    service_account: str  # a path

    @property
    def environ(self) -> dict[str, str]:
        """For a child process."""
        return {
            "TOCSIN_FCM_SERVICE_ACCOUNT": self.service_account,
            "TOCSIN_FCM_URL": self.url,
        }

    def settings(self) -> dict[str, object]:
        """The fields of Settings; raises OSError."""
        account: dict[str, Any] = msgspec.json.decode(Path(self.service_account).read_bytes())
        return {"fcm_service_account": account, "fcm_url": self.url}
