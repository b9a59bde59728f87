"""What a campaign's file and command line declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtfarm.cli.declaration import Given, read
from trtfarm.contract.campaign import MAX_CELLS, CampaignConfig, CampaignModel, CampaignRequest
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName
from trtfarm.contract.v1 import TargetRequest
from trtfarm.errors import InvalidRequestError, LocalFileError, OptionUnknownError, OptionUnsupportedError

DIGEST = Digest.of_bytes(b"model")
FILE = f"""
name = "nightly"
gpu = ["rtx-5090", "l4"]
runtime = "tensorrt-rtx"
options = "--noTF32"
priority = 10
wait_for_worker = true

[models]
resnet50 = "models/resnet50.onnx"
known = "{DIGEST}"
detector = "detector:prod"
dynamic = {{ path = "models/dynamic.onnx", options = "--minShapes=x:1 --optShapes=x:4 --maxShapes=x:8" }}

[configs]
plain = ""
detailed = ["--profilingVerbosity=detailed"]

[[targets]]
gpu = "h200"
runtime = "tensorrt-10.16"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name in ("resnet50", "dynamic"):
        (tmp_path / "models" / f"{name}.onnx").touch()
    return tmp_path


def written(folder: Path, text: str, name: str = "campaign.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_whole_file(folder: Path) -> None:
    found = read([written(folder, FILE)], Given())
    assert [(model.name, model.source) for model in found.models] == [
        ("resnet50", folder / "models/resnet50.onnx"),
        ("known", DIGEST),
        ("detector", ModelName("detector:prod")),
        ("dynamic", folder / "models/dynamic.onnx"),
    ]
    assert [len(model.profiles) for model in found.models] == [0, 0, 0, 1]
    assert [(target.gpu, target.runtime) for target in found.targets] == [
        ("rtx-5090", "tensorrt-rtx"), ("l4", "tensorrt-rtx"), ("h200", "tensorrt-10.16"),
    ]  # fmt: skip
    assert [(each.name, each.config.canonical()) for each in found.configs] == [
        ("plain", {"tf32": False}),
        ("detailed", {"profiling_verbosity": "detailed", "tf32": False}),
    ]
    assert (found.name, found.priority, found.wait_for_worker) == ("nightly", 10, True)
    request = found.request([DIGEST, DIGEST, ModelName("detector:prod"), DIGEST])
    assert len(request.models) * len(request.targets) * len(request.configs) == 24
    assert request.identity == "nightly"


def test_options_of_the_command_line_go_first(folder: Path) -> None:
    given = Given(gpus=("t4",), name="mine", priority=-5, timeout_seconds=9.0, retry_failed=True)
    found = read([written(folder, FILE)], given)
    assert [(target.gpu, target.runtime) for target in found.targets] == [("t4", "tensorrt-rtx")]
    assert (found.name, found.priority, found.timeout_seconds, found.retry_failed) == ("mine", -5, 9.0, True)


def test_a_file_without_a_name_gives_its_own(folder: Path) -> None:
    text = 'gpu = "l4"\n[models]\nm = "models/resnet50.onnx"\n'
    assert read([written(folder, text, "release.toml")], Given()).name == "release"
    assert read([written(folder, text)], Given()).name is None
    found = read([written(folder, text)], Given())
    assert [(each.name, each.config.canonical()) for each in found.configs] == [("default", {})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu = [", "is not TOML"),
        ('gpu = "l4"\n', "models: Field required"),
        ('gpu = "l4"\ncolour = 1\n[models]\nm = "models/resnet50.onnx"\n', "colour: Extra inputs"),
        ('[models]\nm = "models/resnet50.onnx"\n', "There is no target"),
        ('gpu = "l4"\npriority = 101\n[models]\nm = "models/resnet50.onnx"\n', "priority"),
        ('gpu = "l4"\nname = "a b"\n[models]\nm = "models/resnet50.onnx"\n', "name"),
        ('gpu = "l4"\n[models.m]\npath = "models/dynamic.onnx"\noptions = "--noTF32"\n', "no shapes"),
    ],
)
def test_what_is_wrong_with_a_file(folder: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        read([written(folder, text)], Given())


def test_options_are_trtexecs(folder: Path) -> None:
    text = 'gpu = "l4"\noptions = "{}"\n[models]\nm = "models/resnet50.onnx"\n'
    with pytest.raises(OptionUnknownError, match="--nTF32"):
        read([written(folder, text.format("--nTF32"))], Given())
    with pytest.raises(OptionUnsupportedError, match="--timingCacheFile has no meaning"):
        read([written(folder, text.format("--timingCacheFile=x"))], Given())


def test_a_model_that_is_not_there(folder: Path) -> None:
    with pytest.raises(LocalFileError, match="nothing"):
        read([written(folder, 'gpu = "l4"\n[models]\nm = "models/nothing.onnx"\n')], Given())


def test_a_command_line(folder: Path) -> None:
    paths = [str(folder / "models" / f"{name}.onnx") for name in ("resnet50", "dynamic")]
    given = Given(
        gpus=("l4", "t4", "l4"),
        runtimes=("tensorrt-rtx", "tensorrt"),
        configs=("plain=", "small=--memPoolSize=workspace:64 --noTF32"),
        options=("--profilingVerbosity=detailed",),
    )
    found = read([*paths, str(DIGEST), paths[0]], given)
    assert [model.name for model in found.models] == ["resnet50", "dynamic", None]
    assert [(target.gpu, target.runtime) for target in found.targets] == [
        ("l4", "tensorrt-rtx"), ("l4", "tensorrt"), ("t4", "tensorrt-rtx"), ("t4", "tensorrt"),
    ]  # fmt: skip
    assert [each.name for each in found.configs] == ["plain", "small"]
    assert found.configs[1].config.memory_pool_limits == {"workspace": 64 << 20}
    assert all(each.config.profiling_verbosity == "detailed" for each in found.configs)


def test_files_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.onnx").touch()
        paths.append(str(tmp_path / folder / "model.onnx"))
    found = read(paths, Given(gpus=("l4",)))
    assert [model.name for model in found.models] == [path.removesuffix(".onnx") for path in paths]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Given(), "no target"),
        (Given(gpus=("l4",), configs=("fast",)), "NAME=OPTIONS"),
        (Given(gpus=("l4",), configs=("a=", "a=--noTF32")), "one name"),
        (Given(gpus=("l4",), configs=("a='",)), "--config a"),
    ],
)
def test_what_is_wrong_with_a_command_line(folder: Path, given: Given, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        read([str(folder / "models/resnet50.onnx")], given)


def test_a_file_is_given_alone(folder: Path) -> None:
    file = written(folder, FILE)
    with pytest.raises(InvalidRequestError, match="given alone"):
        read([file, str(folder / "models/resnet50.onnx")], Given())
    with pytest.raises(InvalidRequestError, match="the campaign file's"):
        read([file], Given(options=("--noTF32",)))


def request(models: int = 1, targets: int = 1, configs: int = 1, **more: object) -> CampaignRequest:
    return CampaignRequest.model_validate(
        {
            "models": [CampaignModel(model=DIGEST, name=f"m{n}") for n in range(models)],
            "targets": [TargetRequest(gpu=f"gpu-{n}") for n in range(targets)],
            "configs": [CampaignConfig(name=f"c{n}") for n in range(configs)],
            **more,
        }
    )


def test_too_many_cells() -> None:
    assert request(models=50, targets=10, configs=MAX_CELLS // 500)
    with pytest.raises(InvalidRequestError, match=f"{MAX_CELLS} cells at most"):
        request(models=50, targets=10, configs=MAX_CELLS // 500 + 1)


def test_a_name_made_of_what_is_declared() -> None:
    """What does not change the builds changes no name."""
    assert request().identity == request(priority=5, wait_for_worker=True, timeout_seconds=3).identity
    assert request().identity.startswith("campaign-")
    different = [request(models=2), request(targets=2), request(configs=2)]
    assert len({each.identity for each in different} | {request().identity}) == 4
