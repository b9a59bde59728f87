"""docker-compose.yml and the Dockerfiles, as far as they can be checked without Docker."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from tests.meta.repository import ROOT
from trtfarm.cli.roles import ROLES
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings

COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
DOCKERFILES = {name: ROOT / name / "Dockerfile" for name in ("api", "worker")}
# Read by docker-compose.yml itself.
FOR_COMPOSE = {"TRTFARM_LISTEN"}
# Read by `trtfarm db roles`.
FOR_ROLES = {f"TRTFARM_ROLES_{role.upper()}_PASSWORD" for role in ROLES}
PASSWORDS = ("POSTGRES_PASSWORD", "OWNER_PASSWORD", "API_PASSWORD", "WORKER_PASSWORD", "REDIS_PASSWORD")
ONCE = {"roles", "migrate"}
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
    always = {"postgres", "redis", "roles", "migrate", "api", "worker-cpu"}
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
    known = _settings_variables() | FOR_COMPOSE | FOR_ROLES
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
    for password in PASSWORDS:
        assert re.search(rf"^{password}=$", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.mark.parametrize("store", ["file", "s3"])
def test_the_environment_is_valid_settings(store, monkeypatch):
    given = {name: name.lower().replace("_", "") for name in PASSWORDS}
    if store == "s3":
        lines = re.findall(
            r"^#(TRTFARM_STORE_\w+)='?(.*?)'?$", (ROOT / ".env.example").read_text(), re.MULTILINE
        )
        given |= dict(lines)
    for service, settings, role in (
        ("api", ApiSettings, "trtfarm_api:apipassword"),
        ("worker-cpu", WorkerFileSettings, "trtfarm_worker:workerpassword"),
        ("migrate", ApiSettings, "trtfarm_owner:ownerpassword"),
        ("roles", ApiSettings, "postgres:postgrespassword"),
    ):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("TRTFARM_")]:
                patch.delenv(name)
            for name, value in SERVICES[service]["environment"].items():
                text = given.get(name) if value is None else _substituted(str(value), given)
                if text is not None:
                    patch.setenv(name, text)
            loaded: Any = settings.load()
        assert loaded.database.url.get_secret_value() == f"postgresql+psycopg://{role}@postgres:5432/trtfarm"
        if service in ONCE:
            continue
        assert loaded.redis.url.get_secret_value() == "redis://trtfarm:redispassword@redis:6379/0"
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
    command = shlex.split(SERVICES["redis"]["command"][0].splitlines()[-1])
    assert command[command.index("--save") + 1] == ""
    assert command[command.index("--appendonly") + 1] == "no"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_every_service_has_as_little_as_it_needs():
    for name, each in SERVICES.items():
        assert each["read_only"], name
        assert each["cap_drop"] == ["ALL"], name
        assert "cap_add" not in each, name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert each["pids_limit"] <= 4096, name
        assert re.fullmatch(r"\d+[mg]", _substituted(str(each["mem_limit"]), {})), name
        assert "/tmp" in each["tmpfs"], name
        assert not {"privileged", "pid", "ipc", "network_mode"} & set(each), name
        assert not any("docker.sock" in volume for volume in each.get("volumes", ())), name


def test_only_the_api_is_on_a_network_that_leads_outside():
    assert DOCUMENT["networks"]["back"]["internal"]
    outside = {name for name, each in SERVICES.items() if set(each["networks"]) - {"back"}}
    assert outside == {"api"}


def test_each_password_goes_where_it_is_needed():
    """And the superuser's to nothing that goes on running."""

    def users(password: str) -> set[str]:
        return {
            name for name, each in SERVICES.items() if f"${{{password}:" in str(each.get("environment", {}))
        }

    assert users("POSTGRES_PASSWORD") == {"postgres", "roles"}
    assert users("OWNER_PASSWORD") == {"roles", "migrate"}
    assert users("API_PASSWORD") == {"roles", "api"}
    assert users("WORKER_PASSWORD") == {"roles", "worker-cpu", "worker-gpu"}
    assert users("REDIS_PASSWORD") == {"redis", "api", "worker-cpu", "worker-gpu"}
    assert SERVICES["roles"]["command"] == ["trtfarm", "db", "roles"]
    assert SERVICES["migrate"]["depends_on"]["roles"]["condition"] == "service_completed_successfully"
    assert all(not str(SERVICES[name]["restart"]).startswith(("always", "unless")) for name in ONCE)
    roles = {f"trtfarm_{role}" for role in ROLES}
    assert {match[1] for match in re.finditer(r"psycopg://(\w+):", TEXT)} == roles | {"postgres"}


def test_the_script_that_starts_redis(tmp_path):
    """Run as far as the server: the file of users that it makes is the one that tests/security tries."""
    script = SERVICES["redis"]["command"][0].replace("$$", "$")
    rules = ROOT / DOCUMENT["configs"]["redis-users.acl"]["file"]
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/redis-users.acl", str(rules))
    script = script.replace("exec redis-server", "echo")
    environment = {"REDIS_PASSWORD": "0123abcd", "PATH": os.environ["PATH"]}
    shell = [*SERVICES["redis"]["entrypoint"], script]
    said = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout
    assert "0123abcd" not in said
    digest = hashlib.sha256(b"0123abcd").hexdigest()
    made = (tmp_path / "users.acl").read_text()
    assert made == rules.read_text().replace("@SHA256@", digest)
    assert made.splitlines()[0] == "user default off"


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
