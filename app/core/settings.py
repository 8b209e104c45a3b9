"""Every knob of the service, read once from the environment (prefix ``SPICE_``) or a ``.env`` file."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, RedisDsn, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 1024**3
MIB = 1024**2
LONGEST_S = 10**9
"""32 years, in seconds: what is added to a time stays within what Python and Postgres hold."""

QUEUES = ("selection", "gradients", "proofs")

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The one settings class. A wrong value stops the process at its start, naming the variable.

    A field with `repr=False` may hold a secret: no message repeats its value.
    """

    model_config = SettingsConfigDict(
        env_prefix="SPICE_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    # Servers
    database_url: str = Field(
        default="postgresql+psycopg://spice:spice@127.0.0.1:5432/spice",
        repr=False,
        description="Postgres, which holds all state. `postgresql://` is read as `postgresql+psycopg://`.",
    )
    database_pool_size: int = Field(default=10, ge=1, description="Connections that one process keeps open.")
    redis_url: RedisDsn = Field(
        default=RedisDsn("redis://127.0.0.1:6379/0"),
        repr=False,
        description="Redis or Valkey, for the queue alone: it may be wiped at any time.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port that the API listens on.")
    auth: Literal["keys", "off"] = Field(
        default="keys",
        description="Who may use the API: `keys` asks every request for an API key (`spice keys create`); `off` asks "
        "nobody, and is refused unless SPICE_HOST is a loopback address. `spice serve` takes `off` on loopback.",
    )
    auth_cache_s: float = Field(
        default=5,
        ge=0,
        description="Seconds that a process remembers a key; a revoked key may open the API for as long.",
    )
    rate_limit_per_minute: int | None = Field(
        default=None, ge=1, description="Requests that one API key may send in a minute; a project may have its own."
    )
    request_max_bytes: int = Field(default=1 * MIB, gt=0, description="Bytes of a request's body.")
    quota_open_jobs: int | None = Field(
        default=None, ge=0, description="Jobs and proofs of a project that may be open; a project may have its own."
    )
    quota_open_readings: int = Field(
        default=50,
        ge=0,
        description="Datasets, previews and estimates of a project that may wait to be read or be under way; a project "
        "may have its own.",
    )
    quota_rows_per_job: int | None = Field(
        default=None, ge=0, description="Rows of a job's dataset; a project may have its own. Same for all workers."
    )
    quota_rows_per_day: int | None = Field(
        default=None,
        ge=0,
        description="Rows of all jobs that a project has submitted in the last 24 hours, deleted ones too; it may "
        "have its own. Same for all workers.",
    )
    quota_upload_bytes: int | None = Field(
        default=20 * GIB, ge=0, description="Bytes of a project's uploaded files; a project may have its own."
    )
    share_sketches: bool = Field(
        default=False,
        description="Let projects use one another's sketches. Saves computing, but `sketches_reused` and the time a "
        "job takes then tell that another project has used the same rows with the same model. Same for all workers.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Log level. Requests that change nothing are logged at DEBUG."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="`json` writes one object a line, with the request's and the job's id."
    )
    traces: Literal["off", "otlp"] = Field(
        default="off",
        description="OpenTelemetry traces of requests and stages, one across the queue: `otlp` sends them by OTLP over "
        "HTTP, where the OTEL_* variables say. Needs the extra `otel`.",
    )

    # Places
    data_dir: Path = Field(default=Path("var"), description="Where the embedded servers, artifacts and caches live.")
    artifacts_url: str | None = Field(
        default=None,
        description="Sketches and picked rows, shared by all hosts: a directory, as a path or `file://`, or "
        "`s3://bucket/prefix` (default `<data_dir>/artifacts`).",
    )
    cache_dir: Path | None = Field(
        default=None, description="Local copies of fetched datasets (default `<data_dir>/cache`)."
    )

    # What a client may name
    allowed_roots: CommaSeparated = Field(
        default=(),
        description="Directories that `file://` URIs may name, comma separated. Empty: no `file://` at all.",
    )
    allowed_schemes: CommaSeparated = Field(
        default=("file", "https", "s3"), description="URI schemes that a dataset may have, comma separated."
    )
    s3_endpoint_url: str | None = Field(
        default=None,
        description="S3-compatible server of datasets and artifacts; empty means AWS. Credentials come as AWS_* "
        "variables.",
    )
    s3_buckets: CommaSeparated = Field(
        default=(), description="Buckets that `s3://` URIs may name, comma separated. Empty: none."
    )
    https_allow_private: bool = Field(
        default=False,
        description="Let `https://` datasets resolve to private, loopback and link-local addresses. Tests only.",
    )
    hub_models: CommaSeparated = Field(
        default=(),
        description="Models that `hf://` URIs may name, comma separated: `org/name`, or `org/*` for all of an "
        "organisation. Empty: none.",
    )
    hub_datasets: CommaSeparated = Field(
        default=(),
        description="Datasets that `hf://datasets/` URIs may name, comma separated: `org/name`, or `org/*` for all of "
        "an organisation. Empty: none.",
    )
    hub_url: str = Field(
        default="https://huggingface.co", description="The model hub of `hf://` URIs. A token comes as HF_TOKEN."
    )

    # Limits of a dataset
    upload_max_bytes: int = Field(
        default=1 * GIB, ge=0, description="Bytes of a file that is uploaded (`POST /files`). 0: no uploads."
    )
    dataset_max_bytes: int = Field(default=20 * GIB, gt=0, description="Bytes of a dataset file as stored.")
    dataset_max_decoded_bytes: int = Field(
        default=100 * GIB, gt=0, description="Bytes of a dataset after gzip or zstd is undone."
    )
    dataset_max_ratio: int = Field(
        default=200,
        gt=1,
        description="Decoded bytes per stored byte; more is taken for a decompression bomb.",
    )
    dataset_max_rows: int = Field(default=10_000_000, gt=0, description="Rows of a dataset.")
    row_max_bytes: int = Field(default=8 * MIB, gt=0, description="Bytes of one row; longer ones are rejected.")
    template_timeout_s: float = Field(
        default=10, gt=0, description="Seconds that a model's chat template may take for one row."
    )
    template_max_bytes: int = Field(
        default=GIB, ge=64 * MIB, description="Memory of the process in which chat templates run."
    )
    fetch_timeout_s: float = Field(
        default=3600, gt=0, description="Seconds that fetching a dataset or a model may take."
    )

    # Limits of a model
    model_max_bytes: int = Field(
        default=64 * GIB, gt=0, description="Bytes of a model's weights, as stored and as they are unpacked."
    )
    model_json_max_bytes: int = Field(
        default=64 * MIB,
        gt=0,
        description="Bytes of any other file of a model (configuration, tokenizer, template), and of the header of a "
        "weight file.",
    )
    model_unpack_timeout_s: float = Field(
        default=1800, gt=0, description="Seconds that unpacking a GGUF file may take."
    )

    # Queue and worker
    queue_name: str = Field(default="spice", min_length=1, description="Prefix of the names of the RQ queues.")
    worker_queues: CommaSeparated = Field(
        default=QUEUES,
        description="What a worker does, comma separated, what is first in line first: `selection` (reads and "
        "selects, no GPU needed), `gradients`, and `proofs` (trains and scores).",
    )
    lease_s: float = Field(
        default=30,
        gt=0,
        le=LONGEST_S,
        description="Seconds without a heartbeat after which a worker is taken for dead.",
    )
    reconcile_s: float = Field(
        default=10, gt=0, description="Seconds between two runs of the reconciler, which queues lost jobs again."
    )
    max_attempts: int = Field(
        default=5, ge=1, description="Times that a job is started before a dying worker fails it for good."
    )
    job_timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds that a job or a proof may take from its start; its own `timeout_s` may be less, not more.",
    )
    storage_patience_s: float = Field(
        default=3600,
        ge=0,
        le=LONGEST_S,
        description="Seconds that the artifact store may be away before the work that waits for it fails.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: `auto` takes CUDA if there is one.",
    )
    torch_threads: int | None = Field(default=None, ge=1, description="CPU threads of a worker (default: all cores).")
    token_budget: int = Field(
        default=4096, ge=16, description="Tokens of one batch, padding included; bounds the worker's memory."
    )
    shard_rows: int = Field(default=1024, ge=1, description="Rows of one shard of sketches.")
    read_range_bytes: int = Field(
        default=16 * MIB,
        ge=1,
        description="Bytes of a dataset that one worker turns into tokens at a time; a larger one is read by several.",
    )
    proof_checkpoint_s: float = Field(
        default=60, ge=0, le=LONGEST_S, description="Seconds from one checkpoint of a proof's run to the next."
    )

    # Retention: what was used last goes last, what a job uses stays
    artifacts_max_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Bytes of sketches in the artifact store; above the limit the least recently used are deleted.",
    )
    artifacts_max_age_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds since their last use after which sketches, and runs of proofs, are deleted.",
    )
    rows_max_age_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which a job's picked rows and a proof's files are deleted; indices, verdicts stay.",
    )
    uploads_max_age_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which an uploaded file is deleted, unless an open job or proof reads it.",
    )
    cache_max_bytes: int | None = Field(
        default=None, gt=0, description="Bytes of fetched datasets and their samples on each worker's machine."
    )
    cache_max_age_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds since their last use after which fetched datasets and their samples are deleted.",
    )
    retention_s: float = Field(
        default=3600, gt=0, description="Seconds between two sweeps of an API process for artifacts to delete."
    )

    # Events
    events_poll_s: float = Field(
        default=0.5,
        gt=0,
        description="Seconds between two queries of an API process for events that its clients await.",
    )
    events_heartbeat_s: float = Field(
        default=15, gt=0, description="Seconds between comments on an event stream, so that proxies keep it open."
    )

    # Webhooks
    webhook_secret: str | None = Field(
        default=None,
        min_length=16,
        repr=False,
        description="Each project's signing secret is derived from this (`spice projects webhook-secret`). Empty: no "
        "webhooks.",
    )
    webhook_secret_before: str | None = Field(
        default=None,
        min_length=16,
        repr=False,
        description="The secret before the present one. While it is set, messages are signed with both.",
    )
    webhook_attempts: int = Field(default=8, ge=1, description="Times that a message is sent before it is given up.")
    webhook_backoff_s: float = Field(
        default=10,
        gt=0,
        description="Seconds from the first attempt to the second; doubled each time, an hour at most.",
    )
    webhook_timeout_s: float = Field(
        default=10, gt=0, le=LONGEST_S, description="Seconds that a client's server has to answer."
    )
    webhook_poll_s: float = Field(
        default=2, gt=0, description="Seconds between two queries of an API process for due messages."
    )
    webhook_allow_private: bool = Field(
        default=False, description="Send webhooks to private and loopback addresses and over http. Tests only."
    )

    # Lineage
    lineage_url: str | None = Field(
        default=None,
        description="OpenLineage server: where events of jobs are sent to, such as "
        "`http://marquez:5000/api/v1/lineage`. Empty: none. Same for API and workers.",
    )
    lineage_key: str | None = Field(default=None, repr=False, description="Its key, sent as a bearer token.")
    lineage_namespace: str = Field(
        default="spice", min_length=1, description="Namespace of this service's jobs and subsets there."
    )

    # Expiry
    idempotency_max_age_s: float = Field(
        default=86400, gt=0, le=LONGEST_S, description="Seconds for which the answer to an Idempotency-Key is kept."
    )
    jobs_max_age_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Seconds after which a job or a proof is deleted, unless its request says `expires_at`.",
    )
    expiry_s: float = Field(
        default=60,
        gt=0,
        description="Seconds between two queries of an API process for expired jobs, proofs and datasets.",
    )

    # Results
    page_size: int = Field(default=50, ge=1, le=500, description="Default length of a page of a list.")
    chunk_rows: int = Field(
        default=10_000, ge=1, description="Picks stored in one database row; bounds memory when streaming."
    )

    @field_validator(
        "allowed_roots", "allowed_schemes", "s3_buckets", "hub_models", "hub_datasets", "worker_queues", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("worker_queues")
    @classmethod
    def _known_queues(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or set(value) - set(QUEUES):
            raise ValueError(f"must name one or more of {', '.join(QUEUES)}")
        return value

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise ValueError("must begin with postgresql:// (the service runs on Postgres alone)")
        return f"postgresql+psycopg://{rest}"

    @field_validator("s3_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if not value:
            return None
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
            raise ValueError("must be a URL such as https://s3.example, or empty for AWS")
        return value

    @field_validator("lineage_url")
    @classmethod
    def _lineage(cls, value: str | None) -> str | None:
        if not value:
            return None
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
            raise ValueError("must be a URL such as http://marquez:5000/api/v1/lineage")
        return value

    @field_validator("hub_models", "hub_datasets")
    @classmethod
    def _models_or_organisations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for allowed in value:
            if not re.fullmatch(r"[\w.-]+/([\w.-]+|\*)", allowed, re.ASCII):
                raise ValueError(f"{allowed!r} must be org/name, or org/* for all of an organisation")
        return value

    @field_validator("hub_url")
    @classmethod
    def _hub(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
            raise ValueError("must be a URL such as https://huggingface.co")
        return value.rstrip("/")

    @field_validator("artifacts_url")
    @classmethod
    def _directory_or_bucket(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if "://" not in value:
            return value
        if parts.query or parts.fragment or parts.scheme not in ("file", "s3"):
            raise ValueError("must be a directory, file:///directory or s3://bucket/prefix")
        if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or not parts.path.strip("/")):
            raise ValueError("must name a directory of this machine, with three slashes: file:///directory")
        if parts.scheme == "s3" and (not parts.netloc or "@" in parts.netloc):
            raise ValueError("must name a bucket, s3://bucket/prefix; credentials come as AWS_* variables")
        return value

    @model_validator(mode="after")
    def _roots_are_absolute(self) -> Self:
        for root in self.allowed_roots:
            if not Path(root).is_absolute():
                raise ValueError(f"SPICE_ALLOWED_ROOTS: {root!r} is not an absolute path")
        return self

    @model_validator(mode="after")
    def _open_on_loopback_alone(self) -> Self:
        if self.auth == "off" and not self.on_loopback:
            raise ValueError(
                f"SPICE_AUTH: is off, but SPICE_HOST {self.host} can be reached by others: listen on 127.0.0.1, or "
                "use keys (spice keys create)"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def artifacts_place(self) -> str:
        """The artifact store: a directory, or `s3://bucket/prefix`."""
        return self.artifacts_url or str(self.data_dir / "artifacts")

    @property
    def artifacts_path(self) -> Path | None:
        """Directory of the artifact store; None if it is a bucket."""
        parts = urlsplit(self.artifacts_place)
        if parts.scheme == "s3":
            return None
        return Path(unquote(parts.path) if parts.scheme == "file" else self.artifacts_place)

    @property
    def cache_path(self) -> Path:
        """Directory of local dataset copies."""
        return self.cache_dir or self.data_dir / "cache"


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
