"""The bell in a page that an app renders, and the token that it fetches from the app: for any framework."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from datetime import timedelta
from html import escape

from tocsin.client.arguments import RecipientId, recipient_id

TOKEN_PATH = "/notification-token"
LIFETIME = timedelta(minutes=15)

TOKEN_MODULE = """// Lets each bell of the page fetch its token from the app.
const url = import.meta.url.replace(/\\.js(\\?.*)?$/, '');
for (const bell of document.querySelectorAll('tocsin-bell')) {
  bell.getToken = async () => {
    const response = await fetch(url, { credentials: 'same-origin' });
    return response.ok ? response.text() : null; // null: nobody is signed in
  };
}
"""
"""The module that an app serves at TOKEN_PATH + ".js"."""


def person_token(
    person: RecipientId,
    signing_key: str,
    *,
    algorithm: str = "HS256",
    lifetime: timedelta = LIFETIME,
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """Returns a person's JWT for the Tocsin service.

    `signing_key` is the TOCSIN_JWT_SECRET of the service; for an algorithm of key pairs the private key as PEM, which
    needs PyJWT with cryptography. Raises InvalidArgument for what is no id, ValueError for a key that is too short.
    """
    now = int(time.time())
    claims = {
        "sub": recipient_id("person", person),
        "iat": now,
        "exp": now + int(lifetime.total_seconds()),
        **({"aud": audience} if audience is not None else {}),
        **({"iss": issuer} if issuer is not None else {}),
    }
    if not algorithm.startswith("HS"):
        import jwt

        return jwt.encode(claims, signing_key, algorithm)
    if len(signing_key.encode()) < 32:
        raise ValueError(
            "signing_key has less than 32 bytes: use the TOCSIN_JWT_SECRET of the Tocsin service."
        )
    header = {"alg": algorithm, "typ": "JWT"}
    text = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.digest(signing_key.encode(), text, getattr(hashlib, f"sha{algorithm[2:]}"))
    return (text + b"." + _encoded(signature)).decode()


def bell_html(service_url: str, *, token_path: str = TOKEN_PATH, **attributes: str) -> str:
    """Returns `<tocsin-bell>` with its modules, for a page of any person; the token is not in it.

    `service_url` is the TOCSIN_PUBLIC_URL of the service. `attributes` are those of the bell, with `_` for `-`.
    """
    named = "".join(
        f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items()
    )
    service = escape(service_url.rstrip("/"))
    return (
        f"<tocsin-bell{named}></tocsin-bell>"
        # first, so that the bell finds its function when it starts
        f'<script type="module" src="{escape(token_path)}.js"></script>'
        f'<script type="module" src="{service}/assets/tocsin-bell.js"></script>'
    )


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
