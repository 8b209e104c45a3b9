"""Signatures by the Standard Webhooks scheme: a receiver with the secret verifies a message's origin and age."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from standardwebhooks import Webhook

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from app.core.settings import Settings


def secret_of(deployment_secret: str, project_id: uuid.UUID, rotation: int = 0) -> str:
    """A project's secret, `whsec_...`, derived from the deployment's secret and the number of its replacements."""
    name = project_id.bytes + (rotation.to_bytes(4) if rotation else b"")
    derived = hmac.new(deployment_secret.encode(), name, hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(derived).decode()}"


def secrets_in_use(settings: Settings, project_id: uuid.UUID, rotations: Sequence[int]) -> list[str]:
    """All valid secrets: a replaced secret stays valid beside its successor for a while."""
    deployment = [one for one in (settings.webhook_secret, settings.webhook_secret_before) if one is not None]
    return [secret_of(one, project_id, rotation) for one in deployment for rotation in rotations]


def signed_headers(secrets: Sequence[str], message_id: str, body: str) -> dict[str, str]:
    """The three headers of a message. Every attempt has the same id; a receiver needs one signature that verifies."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
