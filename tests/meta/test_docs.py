"""The pages say what is true: links, commands, options, routes, codes, settings and metrics exist."""

from __future__ import annotations

import pkgutil
import re
import shlex
from importlib import import_module
from typing import Any

import pytest
import typer.main

import trtfarm_api.routes
from tests.meta.repository import ROOT, Block, blocks, pages, sources
from trtfarm.cli.main import app
from trtfarm.cli.trtexec_command import META_KEY
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings
from trtfarm.contract.trtexec import parse_build_options
from trtfarm_api import metrics

SHELL = {"sh", "console"}
OTHER_VARIABLES = {
    "TRTFARM_URL", "TRTFARM_API_KEY", "TRTFARM_HOME", "TRTFARM_LISTEN", "TRTFARM_FAILPOINTS",
    "TRTFARM_TEST_DATABASE_URL", "TRTFARM_TEST_REDIS_URL", "TRTFARM_ROLES_OWNER_PASSWORD",
    "TRTFARM_ROLES_API_PASSWORD", "TRTFARM_ROLES_WORKER_PASSWORD",
}  # fmt: skip
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_CODE = re.compile(r'\bcode(?:: ClassVar\[str\])? ?= ?"([A-Z][A-Z_]+)"|problem\(\s*\d+,\s*"([A-Z_]+)"')
_KNOWN_ERRORS = re.compile(r"^_KNOWN = \((.*?)^\)", re.MULTILINE | re.DOTALL)
_FENCES = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_relative_link_leads_somewhere():
    wrong = []
    for page in pages():
        for target in _LINK.findall(_FENCES.sub("", page.read_text(encoding="utf-8"))):
            if re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            headings = _HEADING.findall(file.read_text(encoding="utf-8")) if anchor and file.is_file() else []
            if not file.exists() or (anchor and anchor not in map(_anchor, headings)):
                wrong.append(f"{page.name}: {target}")
    assert wrong == []


def _commands(block: Block) -> list[list[str]]:
    """The arguments of every ``trtfarm`` in a block of shell; of a console's, in the lines that are typed."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found = []
    for line in text.splitlines():
        if "trtfarm " not in line or line.lstrip().startswith("curl"):
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.commenters, words.whitespace_split = "#", True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                found.append(command)
                command = []
            elif command or not _ASSIGNMENT.fullmatch(word):
                command.append(word)
    inside = [each[each.index("trtfarm") + 1 :] for each in found if "trtfarm" in each]
    return [each for each in inside if each]


COMMANDS = [
    pytest.param(arguments, id=f"{block.page}: {' '.join(arguments)[:60]}")
    for block in blocks()
    if block.language in SHELL
    for arguments in _commands(block)
]


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 15
    assert all(block.language for block in blocks()), "a fence says what it holds"


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_parses(arguments):
    _parse(typer.main.get_command(app), list(arguments), "trtfarm")


def _parse(command: Any, arguments: list[str], name: str) -> None:
    """As far as one can without running it: names of commands and options, and kinds of values."""
    context = command.make_context(name, arguments)
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        assert rest[0] in command.commands, f"{name} has no {rest[0]}"
        _parse(command.commands[rest[0]], rest[1:], rest[0])
    elif META_KEY in context.meta:
        parse_build_options(context.meta[META_KEY])


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        row = re.search(rf"^\|.*`trtfarm {name}\b.*$", readme, re.MULTILINE)
        assert row, name
        for each in getattr(command, "commands", ()):
            assert re.search(rf"\b{each}\b", row.group()), f"{name} {each}"


def test_every_route_is_described_and_no_other():
    routes = {
        f"{method} {route.path_format}"
        for module in pkgutil.iter_modules(trtfarm_api.routes.__path__)
        for route in import_module(f"trtfarm_api.routes.{module.name}").router.routes
        if getattr(route, "include_in_schema", False)
        for method in route.methods
    }
    assert set(re.findall(r"^### `([A-Z]+ /\S*)`$", HTTP, re.MULTILINE)) == routes


def test_every_code_is_described_and_no_other():
    codes = {"METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE"}
    for name, path in sources():
        text = path.read_text(encoding="utf-8")
        codes |= {match[1] or match[2] for match in _CODE.finditer(text)}
        if name == "trtfarm_worker.tensorrt.diagnostics":
            codes |= set(re.findall(r'"([A-Z][A-Z_]+)",$', _KNOWN_ERRORS.findall(text)[0], re.MULTILINE))
    table = HTTP[HTTP.index("## Errors") :]
    described = {code for code in re.findall(r"`([A-Z][A-Z_]+)`", table) if "_" in code or code in codes}
    assert described == codes | {"UNKNOWN_FIELD"}


def test_every_variable_is_one():
    known = set(OTHER_VARIABLES)
    for settings in (ApiSettings, WorkerFileSettings):
        for section, field in settings.model_fields.items():
            known |= {f"TRTFARM_{section}_{key}".upper() for key in field.annotation.model_fields}
    for page in pages():
        named = set(re.findall(r"\bTRTFARM_[A-Z][A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named - known == set(), page.name


def test_every_setting_that_operators_read_of_is_one():
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for section, key in re.findall(
        r"`(database|redis|store|server|worker|catalogue|maintenance)\.(\w+)`", text
    ):
        fields = {**ApiSettings.model_fields, **WorkerFileSettings.model_fields}[
            section
        ].annotation.model_fields
        assert key in fields, f"{section}.{key}"


def test_every_metric_is_described_and_no_other():
    assert metrics.__file__.endswith("metrics.py")
    modules = (ROOT / "api" / "trtfarm_api").glob("*metrics.py")
    source = "\n".join(module.read_text(encoding="utf-8") for module in modules)
    made = {
        name + ("_total" if kind == "Counter" else "")
        for kind, name in re.findall(r'(Counter|Histogram|GaugeMetricFamily|Gauge)\(\s*"(\w+)"', source)
    }
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(trtfarm_\w+)`", text, re.MULTILINE)) == made
