"""A client for Guichet, the queue-backed prediction service.

from guichet import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.predict({"age": 41, ...}).probability)
    client.predict_csv("rows.csv").download("scored.csv")
"""

from guichet.aio import AsyncClient, AsyncJob
from guichet.client import Client, Job
from guichet.errors import ConnectionFailed, Fault, GuichetError, JobFailed, Refused, TimedOut, Unusable
from guichet.events import Event
from guichet.flows.calls import CsvOptions
from guichet.flows.changes import Alias, AliasEvent
from guichet.flows.comparisons import Comparison
from guichet.flows.erasures import Erasure
from guichet.flows.reproductions import Reproduction
from guichet.flows.trainings import TrainedVersion, TrainingOptions
from guichet.records import (
    BatchItem,
    BatchResult,
    Contribution,
    Counts,
    CsvError,
    CsvFile,
    CsvReport,
    CsvResult,
    Explanation,
    Feature,
    JobError,
    JobInfo,
    Model,
    ModelInfo,
    Progress,
    QueuePlace,
    Result,
)
from guichet.registering import Registered
from guichet.version import __version__

__all__ = [
    "Alias",
    "AliasEvent",
    "AsyncClient",
    "AsyncJob",
    "BatchItem",
    "BatchResult",
    "Client",
    "Comparison",
    "ConnectionFailed",
    "Contribution",
    "Counts",
    "CsvError",
    "CsvFile",
    "CsvOptions",
    "CsvReport",
    "CsvResult",
    "Erasure",
    "Event",
    "Explanation",
    "Fault",
    "Feature",
    "GuichetError",
    "Job",
    "JobError",
    "JobFailed",
    "JobInfo",
    "Model",
    "ModelInfo",
    "Progress",
    "QueuePlace",
    "Refused",
    "Registered",
    "Reproduction",
    "Result",
    "TimedOut",
    "TrainedVersion",
    "TrainingOptions",
    "Unusable",
    "__version__",
]
