"""What ``trtfarm benchmark`` is given: a plan, or a model to build first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trtfarm.cli.build import follow_builds, valid
from trtfarm.cli.digests import find_digest
from trtfarm.cli.model_source import find_model, model_source
from trtfarm.compose.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import OptimizationProfile, Shape, ShapeRange
from trtfarm.contract.target import parse_capability
from trtfarm.contract.trtexec import TrtexecOptions, parse_build_options
from trtfarm.contract.trtexec_refused import INFERENCE
from trtfarm.contract.v1 import JobRequest, JobView, ModelView, TargetRequest
from trtfarm.errors import InvalidDigestError, InvalidRequestError, NotFoundError, OptionUnsupportedError

# Spellings up to TensorRT 10 of what trtexec 11 does by default.
_DEFAULTS = frozenset({"--useCudaGraph", "--useSpinWait", "--noDataTransfers"})
_PLAN_SUFFIXES = frozenset({".plan", ".engine", ".trt"})
_DIGITS = re.compile(r"(sha256:)?[0-9A-Fa-f]{6,64}")


def find_plan(farm: Farm, text: str) -> Digest | None:
    """The plan that is meant, by its digest, the first digits of it, or its file; None for a model.

    Raises:
        NotFoundError: no plan begins so, or the farm does not have the file's plan.
    """
    path = Path(text)
    if path.is_file() and path.suffix in _PLAN_SUFFIXES:
        with path.open("rb") as file:
            digest = Digest.of_file(file)
        if not _is_plan(farm, digest):
            raise NotFoundError(f"The farm has no plan like {text}.", hint="Give the model instead.")
        return digest
    if path.exists():
        return None
    try:
        digest = Digest(text)
    except InvalidDigestError:
        return find_digest(farm, text) if _DIGITS.fullmatch(text) else None
    return digest if _is_plan(farm, digest) else None


def _is_plan(farm: Farm, digest: Digest) -> bool:
    try:
        farm.plan(digest)
    except NotFoundError:
        return False
    return True


class BuildFirst(NamedTuple):
    """Builds a model for one GPU, as ``trtfarm build`` does.

    ``given``: trtexec's build options; ``shapes``: those to measure with.
    """

    given: Sequence[str]
    options: TrtexecOptions
    gpu: str | None
    runtime: str | None
    shapes: dict[str, Shape]
    priority: int
    timeout: float

    @classmethod
    def read(cls, given: Sequence[str], **more: Any) -> BuildFirst:
        """Raises InvalidRequestError: options that leave nothing to measure, or that write files."""
        try:
            options = parse_build_options(given)
        except OptionUnsupportedError as error:
            raise _not_here(error) from None
        for spelling in ("--saveEngine", "--timingCacheFile", "--skipInference", "--buildOnly"):
            if any(each.partition("=")[0] == spelling for each in given):
                raise InvalidRequestError(f"{spelling} is not for a benchmark.", hint="Use trtfarm build.")
        return cls(given, options, **more)

    def refuse(self) -> None:
        """Of a plan: there is nothing to build."""
        for option in (*self.given, *(["--runtime"] if self.runtime else [])):
            raise InvalidRequestError(
                f"{option} is about the build, and a plan is built.", hint="Give the model instead."
            )

    def build(self, farm: Farm, text: str, *, quiet: bool) -> JobView:
        """The job that made the plan, as it ended.

        Raises:
            InvalidRequestError: no GPU is named, or a capability, which nothing can be measured on.
        """
        source = model_source(text)
        if self.gpu is None:
            raise InvalidRequestError(f"{text} is a model; say for which GPU.", hint="Add --gpu rtx-4090.")
        if parse_capability(self.gpu):
            raise InvalidRequestError(
                f"{self.gpu} is no product.", hint="A benchmark runs on one GPU: name it, as --gpu rtx-4090."
            )
        target = valid(TargetRequest, gpu=self.gpu, runtime=self.runtime)
        digest = find_model(farm, source, quiet=quiet)
        request = valid(
            JobRequest,
            model=digest,
            target=target,
            config=self.options.config,
            profiles=self.options.profiles or self._profiles(farm.model(digest)),
            priority=self.priority,
            timeout_seconds=self.timeout,
        )
        job = farm.submit(request).job
        return follow_builds(farm, [job], quiet=quiet)[job.job_id]

    def _profiles(self, model: ModelView) -> tuple[OptimizationProfile, ...]:
        """As in trtexec, ``--shapes`` alone makes a profile of just them."""
        dynamic = {tensor.name for tensor in model.inputs if tensor.dynamic}
        ranges = {name: ShapeRange(min=each, opt=each, max=each) for name, each in self.shapes.items()}
        return (OptimizationProfile(ranges),) if dynamic & ranges.keys() else ()


def _not_here(error: OptionUnsupportedError) -> OptionUnsupportedError:
    """Options of trtexec's inference are refused to builds with the advice to give them to a benchmark."""
    option = str(error.details.get("option", ""))
    if option.removeprefix("--") not in INFERENCE.split():
        return error
    hint = "trtfarm benchmark --help lists what there is."
    if option in _DEFAULTS:
        hint = "Leave it out: so it is by default."
    return OptionUnsupportedError(f"{option} is not an option here.", hint=hint, option=option)
