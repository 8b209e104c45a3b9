"""Rate limits of keys, counted in Redis for all API processes together.

While Redis does not answer, every request passes and the log says why; Redis is then not asked for some seconds, so
that its time-outs do not slow the API down. Limits that must hold are quotas, and Postgres counts quotas.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from app.http.problems import RateLimited

if TYPE_CHECKING:
    import uuid

    from app.core.settings import Settings

logger = logging.getLogger(__name__)

WINDOW_S = 60
TIMEOUT_S = 0.5
LEFT_ALONE_S = 5.0


class RateLimits:
    """The rate limits of one API process."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis.from_url(
            str(settings.redis_url), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        storage = RedisStorage(
            f"async+{settings.redis_url}",
            implementation="redispy",
            key_prefix=f"{settings.queue_name}:rate",
            connection_pool=self._redis.connection_pool,  # type: ignore[arg-type]  # redis-py gets it as it is
        )
        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._again_at = 0.0

    async def count(self, key_id: uuid.UUID, per_minute: int) -> dict[str, str]:
        """Count a request of a key.

        Returns:
            Headers with the number of requests left (draft-ietf-httpapi-ratelimit-headers); empty if Redis is away.

        Raises:
            RateLimited: The request exceeds the limit.
        """
        if time.monotonic() < self._again_at:
            return {}
        limit = RateLimitItemPerMinute(per_minute)
        try:
            passes = await self._limiter.hit(limit, str(key_id))
            reset_at, left = await self._limiter.get_window_stats(limit, str(key_id))
        except self._storage.base_exceptions as error:
            self._again_at = time.monotonic() + LEFT_ALONE_S
            logger.warning("Redis does not answer, so requests are not counted for %.0f s: %s", LEFT_ALONE_S, error)
            return {}
        wait_s = max(1, math.ceil(reset_at - time.time()))
        headers = {
            "RateLimit-Policy": f'"key";q={per_minute};w={WINDOW_S}',
            "RateLimit": f'"key";r={max(0, left)};t={wait_s}',
        }
        if not passes:
            raise RateLimited(
                f"The key may send {per_minute} requests a minute: wait {wait_s} s, or ask the service's operator for "
                "more (`spice projects limit`).",
                headers={**headers, "Retry-After": str(wait_s)},
            )
        return headers

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
