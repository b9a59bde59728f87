"""How commands end, and what they say of errors."""

from __future__ import annotations

import errno
import json

import pytest
import typer

from trtfarm import errors
from trtfarm.cli import main as cli
from trtfarm.cli.exit_codes import Exit, exit_code
from trtfarm.cli.output import print_fields, print_table, size
from trtfarm.cli.run import exits

Captured = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["trtfarm", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ProfileInvalidError(), Exit.USAGE),
        (errors.NotOnnxError(), Exit.USAGE),
        (errors.ConfigurationError(), Exit.USAGE),
        (errors.LocalFileError(), Exit.USAGE),
        (errors.NotFoundError(), Exit.NOT_FOUND),
        (errors.ModelNotFoundError(), Exit.NOT_FOUND),
        (errors.AuthRequiredError(), Exit.REFUSED),
        (errors.ScopeMissingError(), Exit.REFUSED),
        (errors.FarmUnreachableError(), Exit.UNREACHABLE),
        (errors.DatabaseUnavailableError(), Exit.UNREACHABLE),
        (errors.BuildError(), Exit.JOB_FAILED),
        (errors.BlobCorruptError(), Exit.JOB_FAILED),
    ],
)
def test_exit_codes(error: errors.TrtFarmError, code: Exit, capsys: Captured) -> None:
    assert exit_code(error) is code
    with pytest.raises(typer.Exit) as ended, exits(as_json=True):
        raise error
    assert ended.value.exit_code == code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == error.code


def test_exit_codes_are_those_of_the_contract() -> None:
    assert [code.value for code in Exit] == [0, 1, 2, 3, 4, 5]


def test_an_error_has_its_hint(capsys: Captured) -> None:
    with pytest.raises(typer.Exit), exits(as_json=True):
        raise errors.UnknownGpuError("No.", hint="Yes.")
    assert json.loads(capsys.readouterr().out) == {
        "error": {"code": "UNKNOWN_GPU", "message": "No.", "hint": "Yes."}
    }
    with pytest.raises(typer.Exit), exits(as_json=False):
        raise errors.UnknownGpuError("[red]No.", hint="Yes.")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error [UNKNOWN_GPU] [red]No.\nYes.\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/etc/plan"), "/etc/plan: Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (OSError("odd"), "odd."),
    ],
)
def test_a_file_that_cannot_be_used(error: OSError, message: str, capsys: Captured) -> None:
    with pytest.raises(typer.Exit) as ended, exits(as_json=True):
        raise error
    assert ended.value.exit_code == Exit.USAGE
    assert json.loads(capsys.readouterr().out)["error"] == {"code": "LOCAL_FILE", "message": message}


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with pytest.raises(BrokenPipeError), exits(as_json=True):
        raise BrokenPipeError


def test_ctrl_c(capsys: Captured) -> None:
    with pytest.raises(typer.Exit) as ended, exits(as_json=True):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build", "model.onnx", "--json"], "--gpu"),
        (["build", "--gpu", "cc-8.9", "--json"], "model"),
        (["nonsense", "--json"], "nonsense"),
        (["job", "list", "--limit", "0", "--json"], "--limit"),
        (["job", "list", "--state", "odd", "--json"], "odd"),
        (["job", "show", "--json"], "job"),
        (["fleet", "--nonsense", "--json"], "--nonsense"),
    ],
)
def test_a_command_line_that_cannot_be_read(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run(monkeypatch, *arguments) == Exit.USAGE
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert told in error["message"].lower()
    assert run(monkeypatch, *arguments[:-1]) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err.lower()


def test_done(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert run(monkeypatch, "--version") == Exit.DONE
    assert capsys.readouterr().out.startswith("trtfarm ")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_a_table_keeps_what_looks_like_markup_and_does_not_fold(capsys: Captured) -> None:
    wide = "x" * 150
    print_table(("state", "plan"), [("failed", f"[CODE] {wide} [/]"), ("", 7)], empty="None.")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["state   plan", f"failed  [CODE] {wide} [/]", "        7"]


def test_an_empty_table_says_so_beside_the_output(capsys: Captured) -> None:
    print_table(("state",), [], empty="None.")
    assert capsys.readouterr() == ("", "None.\n")


def test_fields_that_are_none_are_left_out(capsys: Captured) -> None:
    print_fields({"a": 1, "long": None, "b": "x"})
    assert capsys.readouterr().out == "a     1\nb     x\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**31, "2.0 GiB"), (2**50, "1024.0 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_what_the_base_install_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, but what to install."""
    with pytest.raises(typer.Exit) as exit_, exits(as_json=True):
        raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")
    assert exit_.value.exit_code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "CONFIGURATION"
    assert "trtfarm[rtx]" in error["hint"]
