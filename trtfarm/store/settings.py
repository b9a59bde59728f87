"""Where artifacts live."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

_SCHEMES = ("file", "s3", "gs", "az")
# Everything else may be a secret, and is never printed.
_PRINTABLE = frozenset(
    {
        "endpoint",
        "region",
        "virtual_hosted_style_request",
        "allow_http",
        "skip_signature",
        "timeout",
        "connect_timeout",
        "read_timeout",
    }
)


class StoreSettings(BaseModel):
    """A place for artifacts: ``file:///folder``, ``s3://bucket/prefix``, ``gs://…`` or ``az://…``.

    ``options`` are obstore's options of that kind of store (``endpoint``, ``access_key_id``,
    ``secret_access_key``, ``region``, ``virtual_hosted_style_request`` …) and of its HTTP client
    (``allow_http``, ``timeout``, ``root_certificate`` …). Where they say nothing, the cloud's usual
    environment variables and instance roles count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str
    options: dict[str, str] = {}

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"a store's URL starts with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("a store's URL has no credentials, query or fragment: use options")
        if parts.scheme == "file" and (parts.netloc or parts.path in {"", "/"}):
            raise ValueError("a folder's URL is file:// and an absolute path")
        if parts.scheme != "file" and not parts.netloc:
            raise ValueError("a store's URL names a bucket")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _disk_has_no_options(self) -> Self:
        if self.on_disk and self.options:
            raise ValueError("a folder takes no options")
        return self

    @property
    def on_disk(self) -> bool:
        return self.url.startswith("file:")

    def secrets(self) -> frozenset[str]:
        """Values of options that must not be shown."""
        return frozenset(value for key, value in self.options.items() if key not in _PRINTABLE)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        yield "url", self.url
        yield "options", {key: value if key in _PRINTABLE else "***" for key, value in self.options.items()}
