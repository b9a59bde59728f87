"""``trtfarm doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer

from trtfarm import __version__, sandbox
from trtfarm.cli.exit_codes import Exit
from trtfarm.cli.output import print_json, size, stderr
from trtfarm.contract.typed import CONVERTER
from trtfarm.errors import TrtFarmError
from trtfarm.errors.discretion import discreet_url

_SERVER_PACKAGES = ("celery", "fastapi", "sqlalchemy", "obstore")


class Check(NamedTuple):
    """``needed``: without it the command fails."""

    name: str
    ok: bool
    text: str
    advice: str = ""
    needed: bool = False


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Looks at this machine and the farm, and says what is missing."""
    checks = list(_checks())
    if as_json:
        print_json({"checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            stderr.print(f"{'✓' if check.ok else '✗'} {check.name:<14} {check.text}", markup=False)
            if not check.ok and check.advice:
                stderr.print(f"  {check.advice}", markup=False)
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(Exit.JOB_FAILED)


def _checks() -> Iterator[Check]:
    yield Check("trtfarm", True, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    remote = os.environ.get("TRTFARM_URL")
    missing = [name for name in _SERVER_PACKAGES if not _version(name)]
    advice = "For a farm of your own: pip install 'trtfarm[rtx]'"
    text = f"missing: {', '.join(missing)}" if missing else "installed"
    yield Check("server parts", not missing, text, advice, needed=not remote)
    yield from _runtimes()
    yield from _driver()
    yield _sandbox()
    if remote or not missing:
        yield _farm(remote)


def _runtimes() -> Iterator[Check]:
    rtx, full = _version("tensorrt-rtx"), _version("tensorrt")
    advice = "Builds on any machine, GPU or not: pip install 'trtfarm[rtx]'"
    yield Check("tensorrt-rtx", bool(rtx), rtx or "not installed", advice)
    yield Check(
        "tensorrt", bool(full), full or "not installed", "On a machine with a GPU: pip install 'trtfarm[gpu]'"
    )
    name, _, wanted = CONVERTER.rpartition("-")
    found = _version(name)
    advice = f"For --fp16 with TensorRT-RTX and TensorRT 11: pip install {name}=={wanted}"
    yield Check("converter", found == wanted, f"{name} {found}" if found else f"no {name}", advice)


def _driver() -> Iterator[Check]:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        advice = "Only needed to build and measure on this machine's own GPU."
        yield Check("CUDA driver", False, "not found", advice)
        return
    yield Check("CUDA driver", True, "found")
    from trtfarm.compose.machine import gpus

    try:
        found = gpus()
    except TrtFarmError as error:
        yield Check("GPU", False, error.message, error.hint or "")
        return
    for index, device in enumerate(found):
        text = (
            f"{index}: {device.name} ({device.gpu}), compute capability {device.compute_capability}, "
            f"{size(device.memory_bytes)}, driver {device.driver}, CUDA {device.cuda}, {device.uuid}"
        )
        yield Check("GPU", True, text)


def _sandbox() -> Check:
    parts = sandbox.offered()
    return Check(
        "sandbox",
        set(parts) >= sandbox.LEAST,
        f"Linux {platform.release()} can confine: {', '.join(parts)}",
        "Landlock, since Linux 5.13, keeps models from files: see landlock in /sys/kernel/security/lsm.",
    )


def _farm(remote: str | None) -> Check:
    from trtfarm.cli.run import with_farm
    from trtfarm.compose.embedded import Home

    where = discreet_url(remote) if remote else f"embedded, {Home.default().path}"
    try:
        fleet = with_farm(lambda farm: farm.fleet())
    except TrtFarmError as error:
        return Check("farm", False, f"{where}: {error.message}", error.hint or "", needed=True)
    if remote:
        alive = sum(worker.alive for worker in fleet.workers)
        return Check("farm", alive > 0, f"{where}: {alive} workers", "Start one: trtfarm worker")
    free = shutil.disk_usage(Home.default().path).free
    return Check("farm", True, f"{where}, {free / 2**30:.0f} GiB free")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
