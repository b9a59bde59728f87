"""Tables. Rows never leave trtfarm_db: repositories take and return values of the contract."""

from trtfarm_db.models.artifacts import Artifact, ArtifactState, Model, ModelFile, Plan, Upload, UploadedFile
from trtfarm_db.models.campaigns import Campaign, CampaignCell
from trtfarm_db.models.gpu import Benchmark, TimingCache
from trtfarm_db.models.jobs import Attempt, Job, JobEvent, JobInput, QuotaMember, Submission
from trtfarm_db.models.names import ModelTag, ModelTagMove
from trtfarm_db.models.orders import Order
from trtfarm_db.models.workers import ApiKey, Worker

__all__ = [
    "ApiKey",
    "Artifact",
    "ArtifactState",
    "Attempt",
    "Benchmark",
    "Campaign",
    "CampaignCell",
    "Job",
    "JobEvent",
    "JobInput",
    "Model",
    "ModelFile",
    "ModelTag",
    "ModelTagMove",
    "Order",
    "Plan",
    "QuotaMember",
    "Submission",
    "TimingCache",
    "Upload",
    "UploadedFile",
    "Worker",
]
