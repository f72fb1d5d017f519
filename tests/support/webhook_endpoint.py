"""An endpoint of a host app that receives webhooks."""

from __future__ import annotations

import base64

from tocsin.testing.far_end import WebhookEndpoint as Endpoint

__all__ = ["SECRET", "Endpoint"]

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
