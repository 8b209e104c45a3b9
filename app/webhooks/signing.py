"""Signatures as Standard Webhooks has them: who has the secret can tell that a message is ours and fresh."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from standardwebhooks import Webhook

if TYPE_CHECKING:
    import uuid


def secret_of(deployment_secret: str, project_id: uuid.UUID) -> str:
    """A project's secret, derived from the deployment's: `whsec_...`."""
    derived = hmac.new(deployment_secret.encode(), project_id.bytes, hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(derived).decode()}"


def signed_headers(secret: str, message_id: str, body: str) -> dict[str, str]:
    """The three headers of a message; the id is the same each time that it is sent."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
