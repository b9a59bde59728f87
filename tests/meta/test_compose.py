"""docker-compose.yml and the Dockerfiles, as far as they can be checked without Docker."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import yaml

from tests.meta.repository import ROOT
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings

COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
DOCKERFILES = {name: ROOT / name / "Dockerfile" for name in ("api", "worker")}
# Read by docker-compose.yml itself.
FOR_COMPOSE = {"TRTFARM_LISTEN"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_SECRET = re.compile(r"PASSWORD|SECRET|_KEY\b")
_HEREDOC = re.compile(r"<<'EOF' \S+\n(.*?)\nEOF\n", re.DOTALL)


def _settings_variables() -> set[str]:
    names = set()
    for settings in (ApiSettings, WorkerFileSettings):
        for section, field in settings.model_fields.items():
            names |= {f"TRTFARM_{section}_{key}".upper() for key in field.annotation.model_fields}
    return names


def _substituted(text: str, environment: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environment.get(name):
            return environment[name]
        assert kind == "-", f"{name} must be set"
        return rest

    return _VARIABLE.sub(value, text)


def test_services():
    always = {"postgres", "redis", "migrate", "api", "worker-cpu"}
    assert {name for name, each in SERVICES.items() if "profiles" not in each} == always
    assert {profile for each in SERVICES.values() for profile in each.get("profiles", ())} == {"s3", "gpu"}
    for name, each in SERVICES.items():
        assert each.get("image"), name
        assert "latest" not in each["image"]
        assert each.get("restart"), name


def test_what_is_built_is_here():
    for each in SERVICES.values():
        if "build" in each:
            context = ROOT / each["build"]["context"]
            assert context == ROOT
            assert (context / each["build"]["dockerfile"]).is_file()
        else:
            assert ":" in each["image"], "a foreign image has a version"


def test_order_and_volumes():
    for name, each in SERVICES.items():
        for other, wanted in each.get("depends_on", {}).items():
            assert other in SERVICES
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
        for volume in each.get("volumes", ()):
            assert volume.partition(":")[0] in DOCUMENT["volumes"]
    for name in ("api", "worker-cpu", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_every_variable_is_a_setting():
    known = _settings_variables() | FOR_COMPOSE
    read = TEXT + (ROOT / ".env.example").read_text() + "".join(p.read_text() for p in DOCKERFILES.values())
    assert {name for name in re.findall(r"\bTRTFARM_[A-Z_0-9]+", read) if name not in known} == set()


def test_variables_of_compose_are_in_the_example():
    example = (ROOT / ".env.example").read_text()
    wanted = {match[1] for match in _VARIABLE.finditer(TEXT)}
    wanted |= {
        name
        for each in SERVICES.values()
        for name, value in each.get("environment", {}).items()
        if value is None
    }
    assert {name for name in wanted if not re.search(rf"^#?{name}=", example, re.MULTILINE)} == set()


def test_no_secret_is_written_down():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if _SECRET.search(name):
                assert value is None or re.match(r"\$\{\w+:[-?]", value), name
            assert not re.search(r"://\w+:(?!\$\{)[^@/]*@", str(value)), f"{name} has a password in it"
    assert re.search(r"^POSTGRES_PASSWORD=$", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.mark.parametrize("store", ["file", "s3"])
def test_the_environment_is_valid_settings(store, monkeypatch):
    given = {"POSTGRES_PASSWORD": "0123abc"}
    if store == "s3":
        lines = re.findall(
            r"^#(TRTFARM_STORE_\w+)='?(.*?)'?$", (ROOT / ".env.example").read_text(), re.MULTILINE
        )
        given |= dict(lines)
    for service, settings in (
        ("api", ApiSettings),
        ("worker-cpu", WorkerFileSettings),
        ("migrate", ApiSettings),
    ):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("TRTFARM_")]:
                patch.delenv(name)
            for name, value in SERVICES[service]["environment"].items():
                text = given.get(name) if value is None else _substituted(str(value), given)
                if text is not None:
                    patch.setenv(name, text)
            loaded: Any = settings.load()
        assert (
            loaded.database.url.get_secret_value()
            == "postgresql+psycopg://trtfarm:0123abc@postgres:5432/trtfarm"
        )
        assert loaded.redis.url.get_secret_value() == "redis://redis:6379/0"
        assert loaded.store.url.startswith(store)
        if service == "api":
            assert loaded.server.require_keys
            assert "api" in loaded.server.hosts
            mounts = {volume.partition(":")[2] for volume in SERVICES["api"]["volumes"]}
            assert str(loaded.server.staging) in mounts
        if service == "worker-cpu":
            assert str(loaded.worker.scratch) in {v.partition(":")[2] for v in SERVICES[service]["volumes"]}
            grace = SERVICES[service]["stop_grace_period"]
            assert int(grace.removesuffix("s")) > loaded.worker.drain_seconds


def test_only_the_api_has_a_port_and_only_on_loopback():
    ports = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert list(ports) == ["api"]
    assert all(_substituted(port, {}).startswith("127.0.0.1:") for port in ports["api"])


def test_redis_keeps_and_evicts_nothing():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--save") + 1] == ""
    assert command[command.index("--appendonly") + 1] == "no"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile(name):
    text = DOCKERFILES[name].read_text(encoding="utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert text.count("-slim") == text.count("\nFROM ") == 2
    assert text.count("--require-hashes") == 2
    assert re.search(r"^USER trtfarm$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "/var/lib/trtfarm/artifacts" in last, "a named volume takes its owner from the image"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_python_in_a_dockerfile_compiles(name):
    text = DOCKERFILES[name].read_text(encoding="utf-8")
    programs = _HEREDOC.findall(text) + re.findall(r'"-c", "(.*?)"\]', text)
    assert programs
    for program in programs:
        compile(program, name, "exec")


def test_a_build_context_has_what_the_images_copy():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "nothing by default: no secrets, no caches"
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for path in kept:
        assert (ROOT / path).exists(), path
    copied = re.findall(r"^COPY (requirements.*) \./$", DOCKERFILES["api"].read_text(), re.MULTILINE)
    assert set(copied[0].split()) <= set(kept)
    assert {"pyproject.toml", "README.md", "LICENSE", "configs"} <= set(kept), "the wheel needs them"
