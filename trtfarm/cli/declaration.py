"""What ``trtfarm campaign submit`` is to declare: a command line, or a file and a command line."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trtfarm.cli.model_source import ModelSource, model_source
from trtfarm.contract import campaign_file
from trtfarm.contract.campaign import CampaignConfig, CampaignModel, CampaignRequest
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, TargetRequest
from trtfarm.errors import InvalidRequestError


@dataclass(frozen=True)
class Given:
    """Options of the command line; None and nothing where one was left out."""

    gpus: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    name: str | None = None
    priority: int | None = None
    timeout_seconds: float | None = None
    wait_for_worker: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class DeclaredModel:
    """``source``: an ONNX file to be uploaded, or a model that the farm has."""

    name: str | None
    source: ModelSource
    profiles: tuple[OptimizationProfile, ...] = ()


@dataclass(frozen=True)
class Declaration:
    models: tuple[DeclaredModel, ...]
    targets: tuple[TargetRequest, ...]
    configs: tuple[CampaignConfig, ...]
    name: str | None
    priority: int
    timeout_seconds: float
    wait_for_worker: bool
    retry_failed: bool

    def request(self, references: Sequence[Digest | ModelName]) -> CampaignRequest:
        """``references``: of the models, in their order. Raises InvalidRequestError."""
        try:
            return CampaignRequest(
                name=self.name,
                models=tuple(
                    CampaignModel(model=reference, name=model.name, profiles=model.profiles)
                    for model, reference in zip(self.models, references, strict=True)
                ),
                targets=self.targets,
                configs=self.configs,
                priority=self.priority,
                timeout_seconds=self.timeout_seconds,
                wait_for_worker=self.wait_for_worker,
                retry_failed=self.retry_failed,
            )
        except ValidationError as error:
            raise _told(error) from None


def read(models: Sequence[str], given: Given) -> Declaration:
    """Raises InvalidRequestError; OSError if the campaign's file cannot be read."""
    files = [model for model in models if model.endswith(".toml")]
    try:
        declaration = _from_file(Path(files[0]), given) if files else _from_options(models, given)
    except ValidationError as error:
        raise _told(error) from None
    if files and len(models) > 1:
        raise InvalidRequestError("A campaign's file is given alone.", hint="Put the models into the file.")
    if not declaration.targets:
        raise InvalidRequestError("There is no target.", hint="Name GPUs: --gpu rtx-4090 --gpu cc-8.6.")
    return declaration


def _from_options(models: Sequence[str], given: Given) -> Declaration:
    sources = [_source(model, Path()) for model in dict.fromkeys(models)]
    return Declaration(
        models=tuple(map(DeclaredModel, _names(sources), sources)),
        targets=campaign_file.targets(given.gpus, given.runtimes),
        configs=named_configs(given.configs, given.options),
        name=given.name,
        priority=given.priority or 0,
        timeout_seconds=given.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        wait_for_worker=given.wait_for_worker,
        retry_failed=given.retry_failed,
    )


def _from_file(path: Path, given: Given) -> Declaration:
    if given.configs or given.options:
        raise InvalidRequestError(
            "Builder configs are the campaign file's.", hint=f"Put the options into {path}."
        )
    file = campaign_file.parse_campaign(path.read_text(encoding="utf-8"), str(path))
    own = given.gpus or given.runtimes
    return Declaration(
        models=tuple(
            DeclaredModel(name, _source(entry.path, path.parent), campaign_file.profiles(entry.options, name))
            for name, entry in file.models.items()
        ),
        targets=campaign_file.targets(given.gpus or file.gpu, given.runtimes or file.runtime)
        + (() if own else file.targets),
        configs=file.all_configs,
        name=given.name or file.name or _stem(path),
        priority=file.priority if given.priority is None else given.priority,
        timeout_seconds=given.timeout_seconds or file.timeout_seconds,
        wait_for_worker=given.wait_for_worker or file.wait_for_worker,
        retry_failed=given.retry_failed,
    )


def _stem(path: Path) -> str | None:
    """A file without a name gives its own, unless that says nothing."""
    return path.stem if path.stem != "campaign" else None


def _source(text: str, folder: Path) -> ModelSource:
    path = folder / text
    return model_source(text if ":" in text and not path.exists() else str(path))


def _names(sources: Sequence[ModelSource]) -> list[str | None]:
    """A file's stem, with its folder where two are alike; none for what the farm has a name for."""
    stems = Counter(source.stem for source in sources if isinstance(source, Path))
    return [
        None
        if not isinstance(source, Path)
        else source.stem
        if stems[source.stem] == 1
        else str(source.with_suffix(""))
        for source in sources
    ]


def named_configs(texts: Sequence[str], common: Sequence[str]) -> tuple[CampaignConfig, ...]:
    """``texts``: NAME=OPTIONS each; ``common``: options of all. Raises InvalidRequestError."""
    named = dict(map(_config, texts))
    if len(named) < len(texts):
        raise InvalidRequestError("Two --config have one name.")
    return campaign_file.configs(tuple(common), named)


def _config(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, options = text.partition("=")
    if not equals:
        raise InvalidRequestError(
            f"--config {text}: it is not NAME=OPTIONS.",
            hint="As --config 'exact=--noTF32'.",
        )
    try:
        return name, tuple(shlex.split(options))
    except ValueError as error:
        raise InvalidRequestError(f"--config {name}: {error}.") from None


def _told(error: ValidationError) -> InvalidRequestError:
    first = error.errors()[0]
    return InvalidRequestError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.")
