"""The tiny saved model of the unit tests with their settings, and a bucket for models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.s3_server import S3Server, s3_server
from tests.unit.models.conftest import make_settings, saved_model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["make_settings", "saved_model"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.client.create_bucket(Bucket="models")
        yield server
