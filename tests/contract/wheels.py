"""The real bindings of several TensorRT generations, each importable in a process of its own.

They come without TensorRT's libraries. Stand-ins made by gcc define the handful of functions that the
bindings take from them, so that they load; calling one gives a null pointer.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.meta.repository import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / ".venv" / "bindings"
RTX = "rtx"
GENERATIONS = ("8.6", "10.16", "11.4", RTX)
_SHIM = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


def python(generation: str) -> tuple[list[str], dict[str, str]]:
    """A command and an environment in which ``tensorrt`` (``tensorrt_rtx``) is that generation's."""
    here = [path for path in sys.path if path]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if generation != RTX:
        folder = bindings(generation)
        here.insert(0, str(folder / "site"))
        environment["LD_LIBRARY_PATH"] = str(folder / "lib")
    return [sys.executable, "-W", "error"], environment | {"PYTHONPATH": os.pathsep.join(here)}


def bindings(generation: str) -> Path:
    """The folder of that generation in the cache: ``site`` and ``lib``."""
    requirements = HERE / f"bindings-{generation}.txt"
    folder = CACHE / generation
    stamp = folder / requirements.name
    if stamp.is_file() and stamp.read_bytes() == requirements.read_bytes():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{generation}-"))
    download = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*download, "--require-hashes", "-r", requirements, "-d", fresh], check=True)
    with zipfile.ZipFile(next(fresh.glob("*.whl"))) as wheel:
        wheel.extractall(fresh / "site")
    (fresh / "site" / "tensorrt.py").write_text(_SHIM)
    _stand_ins(fresh / "site" / "tensorrt_bindings" / "tensorrt.so", fresh / "lib")
    shutil.copy(requirements, fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def _stand_ins(library: Path, folder: Path) -> None:
    """Shared libraries with the names that ``library`` wants, and the functions that nothing else has."""
    folder.mkdir()
    present = ctypes.CDLL(None)  # Python itself and the C library
    symbols = _output("nm", "-D", "--undefined-only", library)
    wanted = [
        name for name in re.findall(r" U ([^\s@]+)$", symbols, re.MULTILINE) if not hasattr(present, name)
    ]
    source = folder / "stand_ins.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for name in re.findall(r"\[(libnv[^\]]+)\]", _output("readelf", "-d", library)):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True
        )


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
