"""Names of models: the rules of OCI references."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName, ModelReference, NameRequest, model_reference
from trtfarm.contract.v1 import JobRequest, TargetRequest
from trtfarm.errors import InvalidDigestError, InvalidNameError

DIGEST = Digest.of_bytes(b"model")


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("detector:prod", "detector", "prod"),
        ("detector", "detector", "latest"),
        ("vision/detector:v1.2-RC_1", "vision/detector", "v1.2-RC_1"),
        ("a--b/c__d/e.f_g:0", "a--b/c__d/e.f_g", "0"),
        ("sha256/x:y", "sha256/x", "y"),
        ("n" * 200 + ":" + "t" * 128, "n" * 200, "t" * 128),
    ],
)
def test_names(text: str, name: str, tag: str) -> None:
    found = ModelName(text)
    assert (found, found.name, found.tag) == (f"{name}:{tag}", name, tag)
    assert ModelName(found) == found
    assert model_reference(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":prod", "detector:", "Detector:prod", "detector:-x", "detector:.x", "detector:a/b",
        "de tector:x", "-d:x", "d-:x", ".d:x", "d..e:x", "d___e:x", "d._e:x", "/d:x", "d/:x", "d//e:x",
        "d:x:y", "d:x\n", "dé:x", "d:é", "٣:x", "n" * 201 + ":x", "n:" + "t" * 129, "sha256", "sha256:x",
        "../etc/passwd", "d\0:x",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        ModelName(text)
    assert caught.value.hint
    with pytest.raises((InvalidNameError, InvalidDigestError)):
        model_reference(text)


def test_a_digest_is_never_a_name() -> None:
    assert isinstance(model_reference(DIGEST), Digest)
    with pytest.raises(InvalidDigestError):
        model_reference(DIGEST[:-1])


def test_in_documents() -> None:
    request = JobRequest(model="detector:prod", target=TargetRequest(gpu="cc-8.9"))  # type: ignore[arg-type]
    assert isinstance(request.model, ModelName)
    again = JobRequest.model_validate_json(request.model_dump_json(exclude_defaults=True))
    assert (again, type(again.model)) == (request, ModelName)
    assert type(NameRequest(model=DIGEST).model) is Digest
    assert TypeAdapter(ModelReference).json_schema()["type"] == "string"
