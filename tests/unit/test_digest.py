from __future__ import annotations

import hashlib
import io
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from trtfarm.contract import digest
from trtfarm.contract.digest import Digest
from trtfarm.errors import InvalidDigestError

HEX = hashlib.sha256(b"plan").hexdigest()


def test_it_is_the_text_itself():
    name = Digest(f"sha256:{HEX}")
    assert name == f"sha256:{HEX}"
    assert json.dumps({name: name}) == f'{{"sha256:{HEX}": "sha256:{HEX}"}}'
    assert (name.hex, name.short) == (HEX, HEX[:12])


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
        f"sha512:{HEX}",
        "sha256:../../../../etc/passwd",
        "\x00" * 71,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidDigestError) as refusal:
        Digest(text)
    assert refusal.value.code == "INVALID_DIGEST"
    assert len(str(refusal.value)) < 500


def test_a_long_text_is_not_repeated_whole():
    with pytest.raises(InvalidDigestError) as refusal:
        Digest("x" * 1_000_000)
    assert len(str(refusal.value)) < 500


@given(st.binary(), st.integers(1, 64))
def test_the_same_for_bytes_chunks_and_files(data, step):
    expected = f"sha256:{hashlib.sha256(data).hexdigest()}"
    chunks = (data[start : start + step] for start in range(0, len(data), step))
    assert Digest.of_bytes(data) == Digest.of_chunks(chunks) == Digest.of_file(io.BytesIO(data)) == expected


def test_a_file_larger_than_a_chunk_and_from_where_it_stands(monkeypatch):
    monkeypatch.setattr(digest, "CHUNK_BYTES", 7)
    file = io.BytesIO(b"head" + b"rest" * 20)
    file.seek(4)
    assert Digest.of_file(file) == Digest.of_bytes(b"rest" * 20)


def test_in_documents():
    class Document(BaseModel):
        name: Digest

    document = Document.model_validate({"name": f"sha256:{HEX}"})
    assert type(document.name) is Digest
    assert document.model_dump_json() == f'{{"name":"sha256:{HEX}"}}'
    with pytest.raises(ValidationError, match="is not a digest"):
        Document.model_validate({"name": "sha256:short"})
    with pytest.raises(ValidationError):
        Document.model_validate({"name": 7})


def test_its_json_schema_says_how_it_is_written():
    assert TypeAdapter(Digest).json_schema() == {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def test_it_crosses_processes():
    name = Digest.of_bytes(b"plan")
    copy = pickle.loads(pickle.dumps(name))
    assert (copy, type(copy)) == (name, Digest)
