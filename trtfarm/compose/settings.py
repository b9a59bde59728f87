"""Settings files: configs/api.toml and configs/worker.toml, TRTFARM_<SECTION>_<KEY> variables above them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from trtfarm.errors import ConfigurationError
from trtfarm.store import StoreSettings
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.settings import ServerSettings
from trtfarm_db.settings import DatabaseSettings
from trtfarm_worker.settings import WorkerSettings

T = TypeVar("T", bound="_Settings")

_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY")
_SHORTEST_SECRET = 4  # a shorter one would hide half of every line


class RedisSettings(BaseModel):
    """``url`` as redis-py writes it: ``redis://[:password@]host:port/number``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr) -> SecretStr:
        # Celery takes what has no scheme for the name of an AMQP server.
        if not url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("a Redis URL starts with redis:// or rediss://")
        try:
            _ = urlsplit(url.get_secret_value()).port
        except ValueError:
            raise ValueError("a Redis URL is redis://[:password@]host:port/number") from None
        return url


class CatalogueSettings(BaseModel):
    """``path``: a targets.toml of one's own; without it, the one that comes with trtfarm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="TRTFARM_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    store: StoreSettings = StoreSettings(url="file:///var/lib/trtfarm/artifacts")

    def secrets(self) -> frozenset[str]:
        """What no log may show."""
        found = self.store.secrets() | {os.environ.get(name, "") for name in _SECRET_VARIABLES}
        for url in (self.database.url, self.redis.url):
            account, at, _ = url.get_secret_value().partition("://")[2].rpartition("@")
            password = account.partition(":")[2] if at else ""
            found |= {password, unquote(password)}
        return frozenset(each for each in found if len(each) >= _SHORTEST_SECRET)

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """From a TOML file and the environment, which wins.

        Raises:
            ConfigurationError: no such file, an unknown key or variable, or a value that does not fit.
        """
        if path is not None and not path.is_file():
            raise ConfigurationError(f"There is no settings file {path}.")
        _refuse_misspelt(os.environ)

        class FromFile(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,
                file_secret_settings: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                del dotenv_settings, file_secret_settings
                return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

        try:
            loaded: Any = FromFile()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(
                f"{path or 'The environment'}: {where}: {first['msg']}.",
                hint="configs/ has a commented template of every key.",
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"{path or 'The environment'}: {error}") from error
        return loaded  # type: ignore[no-any-return]


class ApiSettings(_Settings):
    server: ServerSettings = ServerSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    catalogue: CatalogueSettings = CatalogueSettings()


class WorkerFileSettings(_Settings):
    worker: WorkerSettings = WorkerSettings()


def _refuse_misspelt(variables: Iterable[str]) -> None:
    """Pydantic finds misspelt keys; a section that it does not know might be somebody else's variable."""
    sections = {*ApiSettings.model_fields, *WorkerFileSettings.model_fields}
    for name in sorted(variables):
        section, _, key = name.removeprefix("TRTFARM_").partition("_")
        if not name.startswith("TRTFARM_") or not key or section.lower() in sections:
            continue
        if meant := get_close_matches(section.lower(), sections, 1, cutoff=0.75):
            raise ConfigurationError(
                f"The environment has {name}, which is no setting.",
                hint=f"Did you mean TRTFARM_{meant[0].upper()}_{key}?",
            )
