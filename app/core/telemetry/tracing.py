"""OpenTelemetry traces: spans of requests and of stages; one trace follows a job through the queue.

`SPICE_TRACES` switches tracing on. It needs the extra `otel`, and the standard OTEL_* variables name the collector.
This module alone imports OpenTelemetry; without it every function here does nothing.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

NAME = "spice"


class TracingNotInstalled(Exception):
    """`SPICE_TRACES` is set, but the extra `otel` is not installed."""


class _State:
    """The tracer of this process, if tracing is on."""

    tracer: Any = None
    provider: Any = None


def start(service: str, exporter: SpanExporter | None = None) -> None:
    """Switch tracing on in this process.

    Args:
        service: Value of `service.name`; OTEL_SERVICE_NAME overrides it.
        exporter: Where spans go, each at once; None is OTLP over HTTP in batches, as the OTEL_* variables say.

    Raises:
        TracingNotInstalled: The extra `otel` is missing.
    """
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TracingNotInstalled(
            f"{error}: SPICE_TRACES needs the extra 'otel' (pip install '.[otel]' in the repository)"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    processor = BatchSpanProcessor(OTLPSpanExporter()) if exporter is None else SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    _State.provider, _State.tracer = provider, provider.get_tracer(NAME)


def stop() -> None:
    """Send the spans that are left, and switch tracing off."""
    if _State.provider is not None:
        _State.provider.shutdown()
    _State.provider = _State.tracer = None


def span(
    name: str, *, parent: str | None = None, attributes: Mapping[str, str] | None = None, server: bool = False
) -> AbstractContextManager[Span | None]:
    """A span around a block; None where tracing is off.

    Args:
        name: Name of the span.
        parent: A traceparent (W3C) of another process; None: the current span is the parent.
        attributes: Attributes of the span: no contents of rows, no secrets.
        server: The span is the answer to a request.
    """
    if _State.tracer is None:
        return nullcontext()
    return _span(name, parent, attributes, server=server)


@contextmanager
def _span(
    name: str, parent: str | None, attributes: Mapping[str, str] | None, *, server: bool
) -> Iterator[Span | None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    with _State.tracer.start_as_current_span(
        name,
        context=context,
        kind=kind,
        attributes=attributes,
        # An exception's message and traceback may hold what no trace should: a presigned URL, a value of a row.
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except Exception as error:
            opened.set_attribute("error.type", type(error).__qualname__)
            opened.set_status(Status(StatusCode.ERROR))
            raise


def traceparent() -> str | None:
    """The current span as a W3C traceparent, for another process to continue."""
    if _State.tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - an extra

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
