"""A campaign as a TOML file, which can live in a user's repository. Paths in it are relative to the file."""

from __future__ import annotations

import shlex
import tomllib
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from trtfarm.contract.campaign import DEFAULT_CONFIG, CampaignConfig, Label, Name
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.trtexec import TrtexecOptions, parse_build_options
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, TargetRequest
from trtfarm.contract.value import Value
from trtfarm.errors import InvalidRequestError, OptionUnsupportedError


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _words(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _entry(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class ModelEntry(Value):
    """``path``: of the ONNX file; a digest or ``name:tag``. ``options``: trtexec's, of shapes alone."""

    path: Annotated[str, Field(min_length=1)]
    options: Words = ()


class CampaignFile(Value):
    """What a campaign's file says.

    Attributes:
        gpu, runtime: every GPU with every runtime; ``targets`` are added to them.
        options: trtexec's build options, of every config.
        configs: name → trtexec's build options, added to ``options``.
    """

    name: Name | None = None
    gpu: Listed = ()
    runtime: Listed = ()
    targets: tuple[TargetRequest, ...] = ()
    options: Words = ()
    configs: dict[Name, Words] = Field(default_factory=dict)
    models: Annotated[dict[Label, Annotated[ModelEntry, BeforeValidator(_entry)]], Field(min_length=1)]
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    wait_for_worker: bool = False

    @property
    def all_targets(self) -> tuple[TargetRequest, ...]:
        return targets(self.gpu, self.runtime) + self.targets

    @property
    def all_configs(self) -> tuple[CampaignConfig, ...]:
        """Raises InvalidRequestError: by option, as on a command line."""
        return configs(self.options, self.configs)


def parse_campaign(text: str, name: str) -> CampaignFile:
    """``name``: of the file, for messages.

    Raises:
        InvalidRequestError: it is not TOML, or a key in it is unknown, missing or wrong.
    """
    try:
        return CampaignFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"{name} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(
            f"{name}: {where}: {first['msg']}.", hint="README.md shows a campaign's file."
        ) from None


def targets(gpus: tuple[str, ...], runtimes: tuple[str, ...]) -> tuple[TargetRequest, ...]:
    """Every GPU with every runtime, each once."""
    pairs = [(gpu, runtime) for gpu in gpus for runtime in (runtimes or (None,))]
    return tuple(TargetRequest(gpu=gpu, runtime=runtime) for gpu, runtime in dict.fromkeys(pairs))


def configs(common: tuple[str, ...], named: dict[str, tuple[str, ...]]) -> tuple[CampaignConfig, ...]:
    """Builder configs by name, each with the common options; without any, one of these alone."""
    return tuple(
        CampaignConfig(name=name, config=options.config, profiles=options.profiles)
        for name, words in (named or {DEFAULT_CONFIG: ()}).items()
        for options in (_build_options((*common, *words)),)
    )


def profiles(words: tuple[str, ...], model: str) -> tuple[OptimizationProfile, ...]:
    """Of a model's own options. Raises InvalidRequestError if they are more than shapes."""
    options = _build_options(words)
    if options.config.canonical():
        raise InvalidRequestError(
            f"Model {model!r} has options that are no shapes.", hint="Put them into a config of the campaign."
        )
    return options.profiles


def _build_options(words: tuple[str, ...]) -> TrtexecOptions:
    options = parse_build_options(words)
    for name, spelling in (("timing_cache_file", "--timingCacheFile"), ("save_engine", "--saveEngine")):
        if name in options.tool:
            raise OptionUnsupportedError(
                f"{spelling} has no meaning in a campaign.",
                hint="The farm keeps timing caches itself; trtfarm plan pull fetches a plan.",
            )
    return options
