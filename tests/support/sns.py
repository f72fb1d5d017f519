"""A far end of Amazon SNS: signs messages, serves its certificate by https, and notes confirmations."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from tests.support.run_folder import run_folder
from tocsin.engine.mail.returned_ses import read_sns, to_signed

TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
HOST = "https://sns.eu-west-1.amazonaws.com"
CERTIFICATE = f"{HOST}/SimpleNotificationService-0a1b2c.pem"


class Sns:
    """Signs with a key of its own; `requests` are the paths that were read."""

    def __init__(self, url: str, ca_file: Path, requests: list[str]) -> None:
        self.url = url
        self.ca_file = ca_file
        self.requests = requests
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.valid_for = timedelta(days=1)

    @property
    def pem(self) -> bytes:
        """The certificate of the key, whose time ends after `valid_for`."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + self.valid_for)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def message(self, content: Any = "", *, version: str = "2", **named: Any) -> bytes:
        """Returns a signed message; what is `named` is part of what is signed."""
        body = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": TOPIC,
            "Message": content if isinstance(content, str) else json.dumps(content),
            "Timestamp": "2026-11-30T09:02:00.000Z",
            "SignatureVersion": version,
            "Signature": "",
            "SigningCertURL": CERTIFICATE,
            "UnsubscribeURL": f"{HOST}/?Action=Unsubscribe",
            **named,
        }
        digest = hashes.SHA1() if version == "1" else hashes.SHA256()
        signed = to_signed(read_sns(json.dumps(body).encode()))
        body["Signature"] = base64.b64encode(self._key.sign(signed, PKCS1v15(), digest)).decode()
        return json.dumps(body).encode()

    def subscription(self, **named: Any) -> bytes:
        """Returns the signed request to confirm a subscription."""
        given = {"SubscribeURL": f"{HOST}/?Action=ConfirmSubscription&Token=t", "Token": "t"}
        return self.message("Confirm", Type="SubscriptionConfirmation", **(given | named))


@contextmanager
def sns() -> Iterator[Sns]:
    """Runs the far end."""
    requests: list[str] = []
    ca = trustme.CA()
    with run_folder() as folder:
        ca_file = folder / "sns-ca.pem"
        ca.cert_pem.write_to_path(ca_file)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                known = self.path.startswith(("/SimpleNotificationService-0a1b2c", "/?Action"))
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(far_end.pem)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        far_end = Sns(f"https://127.0.0.1:{server.server_address[1]}", ca_file, requests)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield far_end
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
