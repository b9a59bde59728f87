"""Campaigns: models, targets and builder configs, submitted and followed as one; and their coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition
from trtfarm.contract.names import ModelReference
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.target import Target
from trtfarm.contract.text import plain_name
from trtfarm.contract.v1 import (
    DEFAULT_TIMEOUT_SECONDS,
    MAX_TIMEOUT_SECONDS,
    ErrorView,
    Page,
    Progress,
    TargetRequest,
)
from trtfarm.contract.value import Value, canonical_json
from trtfarm.errors import InvalidRequestError

MAX_CELLS = 5_000
DEFAULT_CONFIG = "default"

REFUSALS = frozenset(
    {
        "UNSUPPORTED_ON_TARGET", "ONNX_UNSUPPORTED_OP", "ONNX_IMPORT_FAILED", "ONNX_PARSE_ERROR",
        "ONNX_INVALID_GRAPH", "ONNX_UNSUPPORTED_OPSET", "OPTION_UNSUPPORTED", "PROFILE_INVALID",
        "PROFILE_REQUIRED", "FORMAT_UNSUPPORTED", "NO_TACTIC",
    }
)  # fmt: skip
"""Errors that the same build spec meets again: TensorRT's own answer, not an accident."""


class CellState(StrEnum):
    """Where the build of a cell stands. The farm's knowledge decides, whoever has submitted the build."""

    MISSING = "missing"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def live(self) -> bool:
        return self in {CellState.QUEUED, CellState.RUNNING}

    @property
    def hole(self) -> bool:
        """To be submitted by ``fill``."""
        return self in {CellState.MISSING, CellState.FAILED, CellState.CANCELLED, CellState.LOST}


def _no_uuid(name: str) -> str:
    try:
        UUID(name)
    except ValueError:
        return name
    raise ValueError("a name must not look like an id")


Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_no_uuid)
]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), AfterValidator(plain_name)]


class CampaignModel(Value):
    """A row of the matrix.

    Attributes:
        model: a digest; or ``name:tag``, which is looked up each time that the campaign is declared.
        name: what to call it; else the digest's first digits, or the name.
        profiles: for every config that has none of its own.
    """

    model: ModelReference
    name: Label | None = None
    profiles: tuple[OptimizationProfile, ...] = ()

    @property
    def label(self) -> str:
        return self.name or (self.model.short if isinstance(self.model, Digest) else str(self.model))


class CampaignConfig(Value):
    """A builder config by name."""

    name: Name = DEFAULT_CONFIG
    config: BuilderConfig = Field(default_factory=BuilderConfig)
    profiles: tuple[OptimizationProfile, ...] = ()


class CampaignRequest(Value):
    """Every model, for every target, with every config.

    Declared again under its name, it is the same campaign: cells that are no longer declared leave it, and
    only what is missing is built. Without a name, the same models, targets and configs are the same campaign.

    Attributes:
        retry_failed: try cells again that TensorRT has refused.

    Raises:
        InvalidRequestError: a name twice, or too many cells.
    """

    name: Name | None = None
    models: Annotated[tuple[CampaignModel, ...], Field(min_length=1)]
    targets: Annotated[tuple[TargetRequest, ...], Field(min_length=1)]
    configs: Annotated[tuple[CampaignConfig, ...], Field(min_length=1)] = (CampaignConfig(),)
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    wait_for_worker: bool = False
    retry_failed: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (
            ("model", [each.label for each in self.models]),
            ("config", [each.name for each in self.configs]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise InvalidRequestError(f"Two {what}s of the campaign are called {twice[0]!r}.")
        cells = len(self.models) * len(self.targets) * len(self.configs)
        if cells > MAX_CELLS:
            raise InvalidRequestError(
                f"A campaign has {MAX_CELLS} cells at most; these are {cells}.", hint="Make several of it."
            )
        return self

    @property
    def identity(self) -> str:
        """The name, or one made of what is declared."""
        if self.name:
            return self.name
        document = self.model_dump(mode="json", include={"models", "targets", "configs"}, exclude_none=True)
        return "campaign-" + Digest.of_bytes(canonical_json(document)).hex[:12]


class CellPlan(Value):
    digest: Digest
    size_bytes: int


class CellView(Value):
    """One build of a campaign.

    Attributes:
        name: of its model.
        gpus: what the declaration calls the target's GPU; several may share a plan.
        disposition: what the newest submission of the campaign did; None if it submitted nothing.
        job_id: the job that speaks for the build now, whoever has submitted it.
    """

    name: str
    model: Digest
    config: str
    target: Target
    gpus: tuple[str, ...]
    state: CellState
    disposition: Disposition | None
    build_key: str
    job_id: str | None
    plan: CellPlan | None
    build_seconds: float | None
    progress: Progress | None = None
    error: ErrorView | None


class Coverage(Value):
    """How many cells are wanted, have a plan, were refused, are under way; ``holes`` are the others.

    ``complete``: every cell has a plan, but for those that are refused.
    """

    wanted: int
    covered: int
    refused: int
    live: int
    holes: int
    complete: bool

    @classmethod
    def of(cls, states: Iterable[CellState]) -> Self:
        listed = list(states)
        live, holes = sum(state.live for state in listed), sum(state.hole for state in listed)
        return cls(
            wanted=len(listed),
            covered=listed.count(CellState.SUCCEEDED),
            refused=listed.count(CellState.REFUSED),
            live=live,
            holes=holes,
            complete=not live and not holes,
        )


class Changes(Value):
    """What a submission did: cells that came and went, and what became of those that it submitted."""

    added: int
    removed: int
    created: int
    joined: int
    reused: int


class CampaignSummary(Value):
    campaign_id: str
    name: str
    priority: int
    models: int
    targets: int
    configs: int
    coverage: Coverage
    created_at: AwareDatetime
    updated_at: AwareDatetime
    cancelled_at: AwareDatetime | None


class CampaignView(Value):
    """``targets``: as declared; ``cells`` have the exact ones. ``changes``: by the call that is answered."""

    campaign_id: str
    name: str
    priority: int
    timeout_seconds: float
    models: tuple[CampaignModel, ...]
    targets: tuple[TargetRequest, ...]
    configs: tuple[CampaignConfig, ...]
    cells: tuple[CellView, ...]
    coverage: Coverage
    changes: Changes | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    cancelled_at: AwareDatetime | None


class CancelView(Value):
    """``ended``: jobs that were queued; ``asked``: running ones, which end within seconds.

    ``shared``: jobs that go on, as others have submitted them, too.
    """

    campaign: CampaignView
    ended: int
    asked: int
    shared: int


class CampaignPage(Page):
    campaigns: tuple[CampaignSummary, ...]


class CampaignCoverage(Value):
    campaign_id: str
    name: str
    coverage: Coverage


class ModelCoverage(Value):
    """``names``: what campaigns call the model. ``cells``: each build once, however many want it."""

    model: Digest
    names: tuple[str, ...]
    coverage: Coverage
    cells: tuple[CellView, ...]


class CoverageView(Value):
    """Which of the wanted cells have a plan."""

    coverage: Coverage
    campaigns: tuple[CampaignCoverage, ...]
    models: tuple[ModelCoverage, ...]
