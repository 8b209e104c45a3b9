"""What routes depend on costs a request no thread."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from fastapi.routing import APIRoute

from app.core.settings import Settings
from app.main import create_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi.dependencies.models import Dependant
    from starlette.routing import BaseRoute


def api_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from api_routes(getattr(getattr(route, "original_router", route), "routes", ()))


def needed(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from needed(one)


def test_every_dependency_is_a_coroutine() -> None:
    """FastAPI hands plain functions and classes to a thread each, for every request."""
    routes = list(api_routes(create_app(Settings(_env_file=None)).routes))
    calls = {(route.path, call) for route in routes for call in needed(route.dependant)}
    assert len({call for _, call in calls}) > 10
    for path, call in calls:
        assert inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call), (path, call)
