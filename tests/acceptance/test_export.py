"""Triton model repositories of real plans."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from google.protobuf import text_format

from tests.acceptance import models
from tests.acceptance.test_embedded import Shell
from tests.unit.test_triton import PROTOCOL
from trtfarm import Farm
from trtfarm.contract.campaign import CampaignModel, CampaignRequest
from trtfarm.contract.digest import Digest
from trtfarm.contract.v1 import TargetRequest
from trtfarm.errors import LocalFileError, NotExportableError
from trtfarm.sdk.export import Selection

PROFILE = ("--minShapes=x:1x3x32x32", "--optShapes=x:8x3x64x64", "--maxShapes=x:16x3x64x64")


def test_a_campaign_and_its_plans(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    dynamic = models.dynamic(tmp_path / "dynamic.onnx")
    targets = ("--gpu", "cc-8.6", "--gpu", "rtx-4090")
    built = shell.run("campaign", "submit", dynamic, *targets, *PROFILE, "--name", "nightly", "--json")
    assert built.code == 0, built
    plans = {job["target"]["compute_capability"]: job["plan"]["digest"] for job in built.document["jobs"]}

    folder = tmp_path / "deployed" / "models"
    refused = shell.run("campaign", "export", "nightly", folder, "--json")
    assert (refused.code, refused.error["code"]) == (1, "NOT_EXPORTABLE")
    assert "--backend" in refused.error["hint"]
    assert not folder.exists()

    done = shell.run("campaign", "export", "nightly", folder, "--backend", "tensorrt_rtx", "--json")
    assert done.code == 0, done
    assert {each["compute_capability"]: each["digest"] for each in done.document["plans"]} == plans
    (model,) = done.document["models"]
    assert model == {"name": "dynamic", "max_batch_size": 16, "backend": "tensorrt_rtx"}
    config = text_format.Parse((folder / "dynamic/config.pbtxt").read_text(), PROTOCOL.ModelConfig())
    assert (config.name, config.max_batch_size) == ("dynamic", 16)
    assert [(each.name, list(each.dims)) for each in config.input] == [("x", [3, -1, -1])]
    assert [(each.name, list(each.dims)) for each in config.output] == [("y", [8, -1, -1])]
    assert set(config.cc_model_filenames) == set(plans)
    for capability, file in config.cc_model_filenames.items():
        data = (folder / "dynamic/1" / file).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == plans[capability]
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {f"dynamic/1/{file}" for file in config.cc_model_filenames.values()}
    assert written == names | {"dynamic/config.pbtxt"}
    assert [path.name for path in folder.parent.iterdir()] == ["models"], "nothing is left beside it"

    one = tmp_path / "one"
    done = shell.run("plan", "export", plans["8.9"][7:19], "-o", one, "--name", "vision/dynamic:prod",
                     "--backend", "tensorrt_rtx", "--version", "7")  # fmt: skip
    assert done.code == 0, done
    config = text_format.Parse((one / "vision-dynamic-prod/config.pbtxt").read_text(), PROTOCOL.ModelConfig())
    assert dict(config.cc_model_filenames) == {"8.9": "model.cc-8.9.plan"}
    assert (one / "vision-dynamic-prod/7/model.cc-8.9.plan").is_file()
    assert str(one) in done.err


def test_a_campaign_with_holes(tmp_path: Path) -> None:
    """And refused cells, which are left out."""
    models_ = (CampaignModel(model=Digest.of_bytes(models.light("resnet50").read_bytes()), name="resnet"),)
    targets = tuple(TargetRequest(gpu=gpu) for gpu in ("cc-7.5", "cc-8.0"))
    folder, other = tmp_path / "models", Selection(allow_missing=True)
    with Farm(home=tmp_path / "home") as farm:
        farm.upload(models.light("resnet50"))
        farm.campaigns.submit(CampaignRequest(name="nightly", models=models_, targets=targets))
        cells = farm.campaigns.wait("nightly").cells
        (plan,) = (cell.plan for cell in cells if cell.plan)
        lost = farm.plan_path(plan.digest)
        assert lost
        lost.unlink()
        with pytest.raises(NotExportableError, match="1 of 2 cells have no plan") as caught:
            farm.campaigns.export_triton("nightly", folder, backend="mine")
        assert "campaign fill nightly" in (caught.value.hint or "")
        with pytest.raises(NotExportableError, match="No plan of campaign"):
            farm.campaigns.export_triton("nightly", folder, other, backend="mine")
        farm.campaigns.fill("nightly")
        farm.campaigns.wait("nightly")
        with pytest.raises(NotExportableError, match="No plan of campaign"):
            farm.campaigns.export_triton("nightly", folder, Selection(runtime="tensorrt"), backend="mine")
        assert not folder.exists()
        (model,) = farm.campaigns.export_triton(
            "nightly", folder, Selection(gpus=("cc-8.0",)), backend="mine"
        )
        assert list(model.plans) == ["8.0"]
        with pytest.raises(LocalFileError, match="is there already"):
            farm.export_triton({"resnet": [plan.digest]}, folder, backend="mine")
