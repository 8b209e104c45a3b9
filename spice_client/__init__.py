"""The client of the service: what a program or a shell needs to submit jobs and use their subsets.

It needs neither the service's packages nor the workers', and imports nothing of either.
"""

from spice_client.async_client import AsyncSpiceClient
from spice_client.client import SpiceClient
from spice_client.comparison import Compared, Comparison
from spice_client.downloads import Downloaded, FileNotWritable, NotResumable
from spice_client.exports.conversation import RowNotReadable
from spice_client.exports.formats import RegistryNotReadable
from spice_client.exports.operation import Exported, ExportImpossible
from spice_client.models import (
    Conflicts,
    Curve,
    Dataset,
    Estimate,
    Event,
    Job,
    JobResult,
    Proof,
    ProofArm,
    ProofComparison,
    SucceededJob,
    Upload,
)
from spice_client.problems import (
    Conflict,
    IdempotencyKeyInvalid,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    KeyInvalid,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotTheService,
    PackageMissing,
    ProofFailed,
    Refused,
    ServiceFault,
    ServiceUnreachable,
    SpiceError,
    TooManyRequests,
    UrlInvalid,
    WaitTimedOut,
)
from spice_client.requests import JobRequest
from spice_client.retrying import Patience
from spice_client.sources import BudgetNotReadable, NothingThere
from spice_client.tables import Picked, Rows, Subset

__all__ = [
    "AsyncSpiceClient",
    "BudgetNotReadable",
    "Compared",
    "Comparison",
    "Conflict",
    "Conflicts",
    "Curve",
    "Dataset",
    "Downloaded",
    "Estimate",
    "Event",
    "ExportImpossible",
    "Exported",
    "FileNotWritable",
    "IdempotencyKeyInvalid",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobRequest",
    "JobResult",
    "KeyInvalid",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "NotResumable",
    "NotTheService",
    "NothingThere",
    "PackageMissing",
    "Patience",
    "Picked",
    "Proof",
    "ProofArm",
    "ProofComparison",
    "ProofFailed",
    "Refused",
    "RegistryNotReadable",
    "RowNotReadable",
    "Rows",
    "ServiceFault",
    "ServiceUnreachable",
    "SpiceClient",
    "SpiceError",
    "Subset",
    "SucceededJob",
    "TooManyRequests",
    "Upload",
    "UrlInvalid",
    "WaitTimedOut",
]
