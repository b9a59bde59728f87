"""A first look at a file that is said to be an ONNX model.

ONNX has no magic number, so this names what a file certainly is instead. It costs microseconds and
imports nothing, so a server can refuse the usual mistakes at the first bytes of an upload.
"""

from __future__ import annotations

import codecs
import re

from trtfarm.errors import NotOnnxError

HEAD_BYTES = 4096
"""More than this is never looked at."""

_SMALLEST_BYTES = 8
_EXPORT = "Export the model with torch.onnx.export(model, inputs, 'model.onnx')."
_UNPACK = "Unpack it and give the .onnx file."
_PLAN = "A plan is the result of a build; give the ONNX model that it was built from."

# offset, bytes, what it is, hint
_MAGIC: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"version https://git-lfs", "a git-LFS pointer, not the file it stands for", "Run: git lfs pull"),
    (0, b"ftrt", "a TensorRT plan", _PLAN),
    (0, b"vtrt", "a TensorRT plan", _PLAN),
    (0, b"\x1f\x8b", "gzip-compressed", "Unpack it with gunzip and give the .onnx file."),
    (0, b"BZh", "bzip2-compressed", _UNPACK),
    (0, b"\xfd7zXZ\x00", "xz-compressed", _UNPACK),
    (0, b"(\xb5/\xfd", "zstd-compressed", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89HDF\r\n", "an HDF5 file, perhaps a Keras model", "Export it to ONNX with tf2onnx."),
    (4, b"TFL3", "a TensorFlow Lite model", "Export it to ONNX with tf2onnx."),
    (0, b"GGUF", "a GGUF model", "Export the original model to ONNX."),
    (0, b"\x93NUMPY", "a NumPy array", None),
    (0, b"\x7fELF", "an ELF program or library", None),
    (0, b"MZ", "a Windows program or library", None),
    (0, b"%PDF", "a PDF document", None),
    (0, b"\x89PNG", "a PNG image", None),
    (0, b"\xff\xd8\xff", "a JPEG image", None),
    (0, b"GIF8", "a GIF image", None),
    (0, b"RIFF", "a RIFF container (WAV, AVI or WebP)", None),
    (0, b"SQLite format 3", "an SQLite database", None),
)
_HTML = re.compile(rb"<(!doctype html|html|head|body|script|!--)", re.IGNORECASE)
_TEXTS: tuple[tuple[re.Pattern[bytes], str, str | None], ...] = (
    (
        re.compile(rb"<?\s*(ir_version|graph|producer_name|opset_import)\b\s*[:{]"),
        "an ONNX model in text form",
        "Convert it with onnx.load(path, format='textproto') and onnx.save_model.",
    ),
    (re.compile(rb"<"), "an XML document", None),
    (re.compile(rb"[{\[]\s*([\"\[{\]}\d-]|$)"), "a JSON document", None),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def sniff(head: bytes, size_bytes: int) -> None:
    """Passing means no more than: this may be ONNX.

    Args:
        head: the first bytes of the file, up to ``HEAD_BYTES``; fewer only if the file has no more.
        size_bytes: size of the whole file.

    Raises:
        NotOnnxError: the file is certainly something else; the message says what.
    """
    head = head[:HEAD_BYTES]
    if size_bytes == 0:
        raise NotOnnxError("The file is empty.", hint="Was the download or the export interrupted?")
    if size_bytes < _SMALLEST_BYTES:
        raise NotOnnxError(f"The file has {size_bytes} bytes only; that is no ONNX model.")
    for offset, magic, what, hint in _MAGIC:
        if head.startswith(magic, offset):
            _refuse(what, hint)
    _archive_or_pickle(head)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size_bytes:
        _refuse("a safetensors file: weights without a graph", _EXPORT)
    _text(head)
    if not head.strip(b"\0"):
        _refuse("filled with zeros", "An interrupted download leaves such files; fetch it again.")
    if any(byte & 7 not in {0, 1, 2, 5} for byte in head[:1]):
        _refuse("in an unknown binary format")


def _refuse(what: str, hint: str | None = None) -> None:
    raise NotOnnxError(f"The file is {what}; it is not an ONNX model.", hint=hint)


def _archive_or_pickle(head: bytes) -> None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"data.pkl" in head or b"constants.pkl" in head:
            _refuse("a PyTorch checkpoint (.pt, .pth)", _EXPORT)
        if b".npy" in head:
            _refuse("a NumPy archive (.npz)")
        _refuse("a zip archive", _UNPACK)
    if re.match(rb"\x80[\x02-\x05]", head):
        _refuse("a Python pickle, perhaps a PyTorch checkpoint", _EXPORT)


def _text(head: bytes) -> None:
    """Text has no control bytes; an ONNX file has one at once, the tag of its ir_version."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if _HTML.match(text):
        _refuse("an HTML page", "Was a login or error page downloaded in place of the model?")
    if _CONTROL.search(head):
        return
    for pattern, what, hint in _TEXTS:
        if pattern.match(text):
            _refuse(what, hint)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return
    _refuse("a text file")
