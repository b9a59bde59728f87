"""What strangers wrote is shown, and not obeyed; names that people choose show all that they are."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from rich.progress import Progress, TextColumn
from typer.testing import CliRunner

from tests.acceptance.processes import clean_environment
from tests.meta.repository import sources
from tests.security.liar import MODEL, WANTED, Reply, digest, job, lying, plan, refused, said, submission
from tests.security.test_answers import _campaign, _model
from trtfarm.cli import matrix, output
from trtfarm.cli.follow import Follower
from trtfarm.cli.main import app, main
from trtfarm.contract import text
from trtfarm.contract.campaign import CampaignView, Label
from trtfarm.contract.campaign import Name as CampaignName
from trtfarm.contract.jobs import JobState
from trtfarm.contract.models import check_location
from trtfarm.contract.names import ModelName
from trtfarm.contract.order import Filter
from trtfarm.contract.text import plain, visible, visible_in_json

EVIL = (
    "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\u200b\u2028\x7f\r[red][link=http://evil]z[/]:skull:"
)
SHOWN = r"a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\u200b\u2028\x7f\x0d[red][link=http://evil]z[/]:skull:"
Captured = pytest.CaptureFixture[str]


def hidden_in(printed: str) -> set[str]:
    """Beyond ends of lines."""
    return {each for each in printed if not plain(each) and each != "\n"}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")


# --- the rule ---


def test_everything_that_is_hidden_is_known() -> None:
    """By the Unicode of this Python. A newer one may have more: they belong into ``contract.text``."""
    categories = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    assert [each for each in every if unicodedata.category(each) in categories and plain(each)] == []
    letters = [each for each in every if unicodedata.category(each)[0] in "LMNPS" and not plain(each)]
    assert letters == ["\u115f", "\u1160", "\u2800", "\u3164", "\uffa0"]
    assert plain("Gebäude-Ω-模型 🙂/détecteur_v1.2 [x]")


def test_it_is_shown_by_its_number() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("\U000e0041\ud800") == r"\U000e0041\ud800"
    assert visible("a\tb\nc\x1b", keep="\n\t") == "a\tb\nc\\x1b"
    document = {"name": EVIL + "\U000e0041 ü", "more": [1]}
    shown = visible_in_json(json.dumps(document, ensure_ascii=False, indent=1))
    assert (json.loads(shown), hidden_in(shown), "ü" in shown) == (document, set(), True)


# --- every way to the terminal ---


def test_what_commands_print(capsys: Captured) -> None:
    output.say(EVIL)
    output.print_fields({EVIL: EVIL, "two": "line\nstate  succeeded"})
    output.print_table((EVIL, "b"), [(EVIL, 1)], empty="")
    output.print_table(("a",), [], empty=EVIL)
    output.stderr.print(EVIL)
    output.print_error(type("E", (output.TrtFarmError,), {"code": EVIL})(EVIL, hint=EVIL), as_json=False)
    printed = capsys.readouterr()
    assert hidden_in(printed.out + printed.err) == set()
    assert (printed.out.count(SHOWN), printed.err.count(SHOWN)) == (5, 5)
    assert "\nstate  succeeded" not in printed.out, "no line of a value looks like a field"


def test_json(capsys: Captured) -> None:
    output.print_json({EVIL: [EVIL]})
    printed = capsys.readouterr().out
    assert (json.loads(printed), hidden_in(printed)) == ({EVIL: [EVIL]}, set())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the console's own sequences stay, and nobody else's is among them."""
    screen = Terminal()
    console = output.PlainConsole(file=screen, force_terminal=True, width=1000)
    monkeypatch.setattr("trtfarm.cli.follow.stderr", console)
    follower = Follower(None, quiet=False)  # type: ignore[arg-type]
    running = job(None, state=JobState.RUNNING, progress={"stage": EVIL})
    error = {"code": "X", "message": EVIL}
    follower._jobs = {"1": running, "2": job(None, state=JobState.FAILED, error=error)}
    console.print(follower._render())
    (cell,) = CampaignView.model_validate(_campaign()).cells
    console.print(matrix.matrix([cell, cell.model_copy(update={"name": EVIL, "config": EVIL})]))
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(EVIL)
    printed = screen.getvalue()
    assert printed.count("gnp.exe") >= 4
    assert printed.count(SHOWN) == printed.count("gnp.exe")
    for sequence in ("\x1b[2J", "\x1b]0", "\x9b", "\u202e", "\x07"):
        assert sequence not in printed


def test_lines_of_the_farms_own_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(output.PlainFormatter("%(levelname)s: %(message)s"))
    record = logging.LogRecord("x", logging.INFO, "", 0, "worker %s\nERROR: forged", (EVIL,), None)
    handler.handle(record)
    assert stream.getvalue() == f"INFO: worker {SHOWN}\\x0aERROR: forged\n"


COMMANDS = {
    "model show": ("model", "show", MODEL),
    "plan show": ("plan", "show", digest(WANTED)),
    "job show": ("job", "show", "job-1"),
    "job list": ("job", "list"),
    "campaign show": ("campaign", "show", "nightly"),
    "fleet": ("fleet",),
    "an error": ("cache", "list"),
}


@pytest.mark.parametrize("as_json", [False, True])
def test_commands(tmp_path: Path, as_json: bool) -> None:
    """Each shows a name, a message or a note that a stranger chose."""
    tensor = {"name": EVIL, "dtype": "float32", "shape": [1]}
    failed = job(None, state=JobState.FAILED, error={"code": "X", "message": EVIL, "hint": EVIL})
    described = json.dumps({"inputs": [tensor], "outputs": [], "profiles": []}).encode()
    made = plan(WANTED, io=digest(described))
    cell = {"state": "failed", "error": {"code": "X", "message": EVIL}, "plan": None}
    worker = {
        "worker_id": EVIL, "hostname": EVIL, "runtime": EVIL, "platform": EVIL, "gpus": [EVIL], "slots": 1,
        "running": 0, "alive": True, "draining": False, "started_at": "2026-01-01T00:00:00Z",
        "last_seen_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    queue = {"queue": EVIL, "queued": 0, "running": 0, "workers": 1, "slots": 1}
    with lying() as liar:
        liar.holds(made, WANTED)
        liar.routes |= {
            f"GET /v1/models/{MODEL}": said({**_model(MODEL), "inputs": [tensor], "opsets": {EVIL: 1}}),
            "GET /v1/names": said({"names": [], "next": None}),
            f"GET /v1/artifacts/{digest(described)}": Reply(described),
            "GET /v1/benchmarks": said({"benchmarks": [], "next": None}),
            "GET /v1/jobs/job-1": said(failed),
            "GET /v1/jobs": said({"jobs": [failed.model_dump(mode="json")], "next": EVIL}),
            "GET /v1/campaigns/nightly": said(_campaign(cell=cell)),
            "GET /v1/fleet": said({"workers": [worker], "queues": [queue]}),
            "GET /v1/timing-caches": refused(400, EVIL, EVIL, hint=EVIL),
        }  # fmt: skip
        env = clean_environment() | {
            "TRTFARM_HOME": str(tmp_path),
            "TRTFARM_URL": liar.url,
            "COLUMNS": "1000",
        }
        for name, command in COMMANDS.items():
            done = CliRunner().invoke(app, [*command, *(["--json"] if as_json else [])], env=env)
            assert isinstance(done.exception, SystemExit | None), (name, done.exception)
            printed = done.stdout + done.stderr
            assert hidden_in(printed) == set(), name
            assert ("\\u202egnp.exe" in printed, "[link=http://evil]" in printed) == (True, True), (
                name,
                printed,
            )


def test_commands_to_copy_are_quoted(tmp_path: Path) -> None:
    """A shell would run what is in a cursor, an id or a name of a server."""
    evil = "x; touch /tmp/owned"
    with lying() as liar:
        liar.routes["GET /v1/jobs"] = said({"jobs": [job(None).model_dump(mode="json")], "next": evil})
        liar.routes["GET /v1/plans"] = said({"plans": [], "next": evil})
        liar.routes["GET /v1/benchmarks"] = said({"benchmarks": [], "next": None})
        liar.routes["POST /v1/jobs/job-1/retry"] = said(submission(job(None, job_id=evil)))
        env = clean_environment() | {"TRTFARM_HOME": str(tmp_path), "TRTFARM_URL": liar.url}
        for command in (("job", "list"), ("plan", "list"), ("job", "retry", "job-1")):
            told = CliRunner().invoke(app, command, env=env).stderr
            assert (evil in told, f"'{evil}'" in told) == (True, True), told


def test_a_command_line_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """It is quoted, and a shell puts names of files into it: trtfarm cache export *."""
    monkeypatch.setattr("sys.argv", ["trtfarm", "fleet", EVIL])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert (hidden_in(told), SHOWN in told.replace("\\\\", "\\")) == (set(), True), told


def test_a_traceback_in_the_farms_own_log() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    told = output.PlainFormatter("%(message)s").format(record)
    assert (hidden_in(told), SHOWN in told) == (set(), True)


def test_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a pipe as it is; on a terminal with its lines and tabs alone."""
    log = f"\x1b[32mbuilt\x1b[0m\n\t{EVIL}\n"
    piped = io.StringIO()
    monkeypatch.setattr("sys.stdout", piped)
    output.print_log(log)
    assert piped.getvalue() == log
    with lying() as liar:
        liar.routes["GET /v1/jobs/1/log"] = Reply(log.encode())
        env = os.environ | {"TRTFARM_URL": liar.url, "TRTFARM_HOME": str(tmp_path)}
        shown = _on_a_terminal(env, "job", "logs", "1").replace("\r\n", "\n")
    assert shown == f"\\x1b[32mbuilt\\x1b[0m\n\t{SHOWN}\n"


def _on_a_terminal(env: dict[str, str], *arguments: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "trtfarm", *arguments]
    with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        parts = []
        with contextlib.suppress(OSError):  # Linux: the other side has closed it
            while data := os.read(ours, 1 << 16):
                parts.append(data)
    os.close(ours)
    return b"".join(parts).decode()


def test_there_is_no_other_way_out() -> None:
    """All of the commands' output goes through ``cli.output``."""
    # The version; and typer's own help, which trtfarm's options are added to.
    allowed = {("trtfarm.cli.main", "echo"), ("trtfarm.cli.trtexec_command", "write")}
    found = set()
    for name, path in sources():
        if not name.startswith("trtfarm.cli.") or name == "trtfarm.cli.output":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"echo", "secho", "stderr", "write"}:
                found.add((name, node.attr))
            if isinstance(node, ast.Name) and node.id in {"print", "Console"}:
                found.add((name, node.id))
            if isinstance(node, ast.Attribute) and node.attr == "from_markup":
                found.add((name, node.attr))
    ways = {each for each in found if each[1] != "stderr"}
    assert ways == allowed


# --- names ---


def _accepts(kind: Any, name: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(name)
    except (ValidationError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    "character", ["\x1b", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\u061c", "\u2028"]
)
def test_names_that_people_choose_are_what_they_look_like(character: str) -> None:
    for kind, name in ((Label, "resnet"), (Filter, "l4"), (CampaignName, "nightly"), (ModelName, "a:b")):
        assert _accepts(kind, name)
        assert not _accepts(kind, f"{name}{character}"), kind
        assert not _accepts(kind, f"{character}{name}"), kind
        assert not _accepts(kind, f"{name[0]}{character}{name[1:]}"), kind
    with pytest.raises(ValueError, match="not allowed"):
        check_location(f"weights{character}.bin")


def test_a_keys_name(capsys: Captured, tmp_path: Path) -> None:
    env = clean_environment() | {"TRTFARM_DATABASE_URL": f"sqlite:///{tmp_path / 'farm.sqlite'}"}
    assert CliRunner().invoke(app, ["db", "upgrade"], env=env).exit_code == 0
    done = CliRunner().invoke(app, ["key", "create", EVIL, "--json"], env=env)
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (2, "VALIDATION_ERROR")
    assert CliRunner().invoke(app, ["key", "create", "ci", "--json"], env=env).exit_code == 0
    listed = CliRunner().invoke(app, ["key", "list", "--json"], env=env)
    assert [each["name"] for each in json.loads(listed.stdout)["keys"]] == ["ci"]


def test_a_file_whose_name_would_be_a_row(tmp_path: Path) -> None:
    from trtfarm.cli import declaration
    from trtfarm.errors import InvalidRequestError

    path = tmp_path / "net\u202egnp.onnx"
    path.write_bytes(b"x")
    wanted = declaration.read([str(path)], declaration.Given(gpus=("l4",)))
    with pytest.raises(InvalidRequestError, match="cannot be seen"):
        wanted.request([MODEL])
    assert text.plain(str(tmp_path))
