"""Tables. Rows never leave trtfarm_db: repositories take and return values of the contract."""

from trtfarm_db.models.artifacts import Artifact, Model, Plan, Upload
from trtfarm_db.models.gpu import Benchmark, TimingCache
from trtfarm_db.models.jobs import Attempt, Job, JobEvent, Submission
from trtfarm_db.models.workers import ApiKey, Worker

__all__ = [
    "ApiKey",
    "Artifact",
    "Attempt",
    "Benchmark",
    "Job",
    "JobEvent",
    "Model",
    "Plan",
    "Submission",
    "TimingCache",
    "Upload",
    "Worker",
]
