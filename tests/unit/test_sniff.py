"""What is certainly no ONNX model is named for what it is."""

import contextlib
import gzip
import io
import json
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtfarm.errors import NotOnnxError
from trtfarm.inspection.sniff import HEAD_BYTES, sniff


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return file.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"

CORPUS = {
    "empty": (b"", "empty", "interrupted"),
    "one byte": (b"\x08", "1 bytes only", None),
    "zeros": (bytes(5000), "zeros", "fetch it again"),
    "html": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>404</html>", "HTML", "login or error page"),
    "html fragment": (b"<HTML><body>Sign in</body>", "HTML", None),
    "xml": (b"<Error><Code>AccessDenied</Code></Error>", "XML", None),
    "lfs": (LFS, "git-LFS pointer", "git lfs pull"),
    "pickle": (pickle.dumps({"a": 1}), "pickle", "torch.onnx.export"),
    "old pickle": (pickle.dumps([1, 2, 3] * 9, 2), "pickle", "torch.onnx.export"),
    "torch": (_zip("archive/data.pkl", "archive/version"), "PyTorch", "torch.onnx.export"),
    "numpy zip": (_zip("w.npy"), "NumPy archive", None),
    "zip": (_zip("model.onnx"), "zip", "Unpack"),
    "gzip": (gzip.compress(b"x" * 99), "gzip", "gunzip"),
    "tar": (_tar(), "tar archive", "Unpack"),
    "safetensors": (_safetensors(), "safetensors", "torch.onnx.export"),
    "plan": (b"ftrt" + bytes(64), "TensorRT plan", "ONNX model"),
    "rtx plan": (b"vtrt" + bytes(64), "TensorRT plan", "ONNX model"),
    "text proto": (b'ir_version: 8\ngraph {\n  name: "g"\n}\n', "text form", "textproto"),
    "onnx text": (
        b'<ir_version: 8, opset_import: ["" : 13]> g (float[1] x) => (float[1] y) {}',
        "text form",
        None,
    ),
    "json": (b'{"error": {"code": 404}}', "JSON", None),
    "json cut": (b'[{"a": "' + b"b" * HEAD_BYTES, "JSON", None),
    "text": ("Überraschung, kein Modell\n".encode(), "text file", None),
    "text cut in a letter": (("x" * (HEAD_BYTES - 1) + "ü" * 50).encode(), "text file", None),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(60), "ELF", None),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF", None),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG", None),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite", "tf2onnx"),
    "no tag": (b"\x07\x01\x02\x03" * 8, "unknown binary", None),
}


@pytest.mark.parametrize("name", CORPUS)
def test_names_what_it_is(name):
    data, what, hint = CORPUS[name]
    with pytest.raises(NotOnnxError, match=what) as caught:
        sniff(data[:HEAD_BYTES], len(data))
    assert caught.value.code == "NOT_ONNX"
    if hint:
        assert hint in caught.value.hint


def test_real_models_pass():
    for path in LIGHT.glob("*.onnx"):
        data = path.read_bytes()
        sniff(data[:HEAD_BYTES], len(data))


def test_only_the_head_counts():
    sniff(b"\x08\x07" + b"\x12\x04test" * 700 + b"<html>", 99_999)


@given(st.binary(max_size=300), st.integers(0, 2**40))
def test_nothing_else_is_raised(data, size):
    with contextlib.suppress(NotOnnxError):
        sniff(data, max(size, len(data)))


def test_most_random_files_are_refused_or_pass_on():
    rng = random.Random(1)
    for _ in range(200):
        data = rng.randbytes(64)
        try:
            sniff(data, 64)
        except NotOnnxError:
            continue
        assert data[0] & 7 in {0, 1, 2, 5}


def test_imports_no_onnx():
    code = "import sys, trtfarm.inspection.sniff; assert not {'onnx', 'google.protobuf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
