# Two images out of one file:
#   docker build --target api .                          the HTTP service, without torch
#   docker build --target worker .                       a worker for CPUs
#   docker build --target worker --build-arg TORCH=cuda .  a worker for NVIDIA GPUs (CUDA 13, torch's own wheels)
# All dependencies are those of requirements.lock. Their layers are made anew only when it or pyproject.toml changes.

ARG PYTHON_IMAGE=python:3.11.16-slim-trixie@sha256:be1575ed968de893bd54f4c56315ff7c4736ce522c1bca08fd521731aafc0d76


FROM ${PYTHON_IMAGE} AS builder
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/spice
RUN pip install --no-cache-dir uv==0.13.9 && uv venv "$VIRTUAL_ENV"
WORKDIR /source
COPY pyproject.toml requirements.lock ./


FROM builder AS api-builder
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --requirement pyproject.toml --extra server --constraint requirements.lock
COPY . .
RUN uv pip install --no-deps --build-constraint requirements.lock .


FROM builder AS worker-builder
ARG TORCH=cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    case "$TORCH" in \
        cpu) set -- --torch-backend cpu ;; \
        cuda) set -- ;; \
        *) echo "TORCH is $TORCH, but must be cpu or cuda" >&2; exit 1 ;; \
    esac \
    && uv pip install --requirement pyproject.toml --extra worker --constraint requirements.lock "$@"
COPY . .
RUN uv pip install --no-deps --build-constraint requirements.lock .


# Nothing here writes outside /var/lib/spice and /tmp: the root filesystem may be mounted read-only.
FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 spice \
    && useradd --uid 10001 --gid spice --home-dir /var/lib/spice --no-create-home --shell /usr/sbin/nologin spice \
    && install --directory --owner=spice --group=spice /var/lib/spice
ENV PATH=/opt/spice/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SPICE_DATA_DIR=/var/lib/spice
WORKDIR /var/lib/spice
USER 10001:10001


FROM runtime AS worker
COPY --from=worker-builder /opt/spice /opt/spice
# No health check: a worker answers nothing over a network. Its supervisor restarts a worker that dies, and a worker
# that hangs loses its lease, so that another worker takes its job. (`HEALTHCHECK NONE` would fail `compose up --wait`.)
# Bars that redraw themselves have no place in a container's log.
ENV HF_HUB_DISABLE_PROGRESS_BARS=1 \
    TQDM_DISABLE=1
CMD ["spice", "worker"]


FROM runtime AS api
COPY --from=api-builder /opt/spice /opt/spice
ENV SPICE_HOST=0.0.0.0 \
    SPICE_PORT=8000
EXPOSE 8000
# Is the process alive: what a supervisor that restarts unhealthy containers has to ask. A database that is away is
# no reason to restart the API; whether it can serve is what /readyz tells.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"SPICE_PORT\"]}/healthz', timeout=2)"]
CMD ["spice", "api"]
