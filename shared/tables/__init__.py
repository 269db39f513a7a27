"""Every table of the service, a comment on each column; Alembic owns the schema, and a test compares the two.

Imports the types of the database room, and holds no query. jobs 1-n model_inputs 1-n model_outputs, explanations
and outcomes; model_versions 1-n model_aliases, feature_counts, score_parts and alerts, 1-1 feature_profiles; a CSV
job has one csv_files and n job_chunks and job_events, a replay one replays and n score_pairs, an upload of a model
one registrations and n registration_parts, a training those and one trainings, a reproduction one registrations and
one reproductions; model_outputs 1-n shadow_scores, model_versions 1-1 shadows; reference_sets 1-n reference_rows.
"""

from shared.tables.base import Table
from shared.tables.comparison import Replay, ScorePairs, Shadow, ShadowScore
from shared.tables.csv import ChunkState, CsvFile, JobChunk, JobEvent
from shared.tables.explanations import StoredExplanation
from shared.tables.jobs import ErasedJob, Job, JobKind, JobState, ModelInput, ModelOutput
from shared.tables.keys import ApiKey
from shared.tables.logs import AuditLog, ErrorLog, RequestLog
from shared.tables.metrics import MetricSample, ServiceSecret
from shared.tables.models import AliasEvent, ModelAlias, ModelArchive, ModelVersion
from shared.tables.monitoring import Alert, FeatureCount, FeatureProfile, Incident, Outcome, ScorePart
from shared.tables.reference import ReferenceRow, ReferenceSet
from shared.tables.registrations import Registration, RegistrationPart, Reproduction, Training
from shared.tables.workers import TimedTask, Worker

__all__ = [
    "Alert",
    "AliasEvent",
    "ApiKey",
    "AuditLog",
    "ChunkState",
    "CsvFile",
    "ErasedJob",
    "ErrorLog",
    "FeatureCount",
    "FeatureProfile",
    "Incident",
    "Job",
    "JobChunk",
    "JobEvent",
    "JobKind",
    "JobState",
    "MetricSample",
    "ModelAlias",
    "ModelArchive",
    "ModelInput",
    "ModelOutput",
    "ModelVersion",
    "Outcome",
    "ReferenceRow",
    "ReferenceSet",
    "Registration",
    "RegistrationPart",
    "Replay",
    "Reproduction",
    "RequestLog",
    "ScorePairs",
    "ScorePart",
    "ServiceSecret",
    "Shadow",
    "ShadowScore",
    "StoredExplanation",
    "Table",
    "TimedTask",
    "Training",
    "Worker",
]
