"""Names in an upload never reach a file that is the farm's own, nor another file of the upload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.integration.rtx_child import Child
from trtfarm.contract.models import ExternalFile, ModelManifest, check_location, check_side_by_side
from trtfarm.contract.triton import check_names
from trtfarm.errors import ExternalDataPathError
from trtfarm.inspection.inspect import inspect_model
from trtfarm.inspection.manifest import manifest_of
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_worker.model_cache import MODEL_FILE, UPLOADED, ModelCache

# Names that the farm has, or had, for files of its own, and what a file system might take for them.
OURS = [
    "model.onnx.trtfarm", "typed.trtfarm", "typed.trtfarm/x/typed.onnx", "MODEL.ONNX.TRTFARM", "model.onnx",
    "Model.ONNX", "model.onnx/w", "model", "model/model.onnx", "typed", "typed/x/typed.onnx", "typed.onnx",
    "typed.onnx.data", "typed.txt", "plan", "io.json", "build.log", "manifest.json", ".manifest.json",
    "input0", "config.pbtxt", ".lock", ".partial", "w.", "w ",
]  # fmt: skip
COLLISIONS = [
    ("w", "w"), ("a", "a/b"), ("A", "a"), ("A", "a/b"), ("a/B/c", "A/b"), ("größe", "gro\u0308sse"),
    ("ﬁ", "FI"), ("K", "k"), ("w1", "w\u00b9"), ("a/b/c/d", "a"),
]  # fmt: skip


def product(path: Path, location: str, *, factor: float = 1.0) -> Path:
    """An ONNX file that multiplies by weights in ``location``, and those beside it."""
    weights = np.full((16, 8), factor, np.float32) * np.arange(8, dtype=np.float32)
    tensor = numpy_helper.from_array(weights, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (kept,) = model.graph.initializer
    kept.ClearField("raw_data")
    kept.data_location = TensorProto.EXTERNAL
    kept.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    weights_file = path.parent / location
    weights_file.parent.mkdir(parents=True, exist_ok=True)
    weights_file.write_bytes(weights.tobytes())
    return path


class World:
    """A store and a worker's cache."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri()))
        self.folder = folder / "models"
        self.cache = ModelCache(self.folder, self.store, 10**9)

    def upload(self, model: Path) -> ModelManifest:
        """As a client does that inspects it first."""
        manifest = manifest_of(model)
        self.store.put_file(model, manifest.onnx, manifest.onnx_size_bytes)
        for file in manifest.external_data:
            self.store.put_file(model.parent / file.location, file.digest, file.size_bytes)
        return manifest


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("child")) as child:
        yield child


@pytest.mark.parametrize("location", OURS)
def test_the_inspected_file_is_the_one_that_is_built(world: World, tmp_path: Path, location: str) -> None:
    """Under whatever name the weights are uploaded: the graph is the one that was looked at."""
    uploaded = tmp_path / "uploaded"
    uploaded.mkdir()
    model = product(uploaded / "the_one.onnx", location)
    manifest = world.upload(model)
    with world.cache.model(manifest) as cached:
        assert cached.onnx.read_bytes() == model.read_bytes()
        assert (cached.onnx.parent / location).read_bytes() == (uploaded / location).read_bytes()
        assert not cached.typed.is_relative_to(cached.onnx.parent)
        assert {each.name for each in cached.typed.parent.iterdir()} == {UPLOADED}


def test_a_model_that_hides_behind_another_is_not_built(world: World, child: Child, tmp_path: Path) -> None:
    """The weights are an ONNX file that nobody has inspected, under the cache's old name for the graph."""
    uploaded = tmp_path / "uploaded"
    uploaded.mkdir()
    hidden = helper.make_node("Relu", ["x"], ["hidden"], name="hidden")
    graph = helper.make_graph(
        [hidden],
        "hidden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, 8])],
    )
    opsets = [helper.make_opsetid("", 17)]
    body = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    for name in ("model.onnx.trtfarm", "model.onnx"):
        model = product(uploaded / "the_one.onnx", name)
        real = (uploaded / name).read_bytes()
        (uploaded / name).write_bytes(body + real[len(body) :])
        with world.cache.model(world.upload(model)) as cached:
            built = child.build(cached.onnx)
        assert built.error is None
        assert [each["name"] for each in built.io["outputs"]] == ["y"]


def test_weights_under_odd_names_give_the_plan_that_others_give(
    world: World, child: Child, tmp_path: Path
) -> None:
    """TensorRT finds them beside a file whose name has a colon."""
    plans = set()
    for number, location in enumerate(
        ("weights.bin", "model.onnx", "typed.trtfarm/a/typed.onnx", "größe 1/w")
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with world.cache.model(world.upload(product(folder / "the_one.onnx", location))) as cached:
            built = child.build(cached.onnx)
        assert built.error is None, location
        plans.add(built.plan)
    assert len(plans) == 1


def test_no_location_is_the_name_of_the_onnx_file() -> None:
    """Whatever a file system takes for the same name, the character that sets it apart is refused."""
    for location in (
        MODEL_FILE,
        MODEL_FILE.upper(),
        f"{MODEL_FILE}/w",
        "m\uff1amodel.onnx",
        "\uff4d:model.onnx",
    ):
        with pytest.raises(ExternalDataPathError):
            check_location(location)


@pytest.mark.parametrize("locations", COLLISIONS)
def test_two_files_that_are_one_on_some_disk_are_refused(locations: tuple[str, str], tmp_path: Path) -> None:
    for pair in (locations, locations[::-1]):
        with pytest.raises(ExternalDataPathError):
            check_side_by_side(pair)
        files = [{"location": each, "digest": "sha256:" + "0" * 64, "size_bytes": 1} for each in pair]
        manifest = {"onnx": "sha256:" + "1" * 64, "onnx_size_bytes": 1, "external_data": files}
        with pytest.raises(ValueError, match="External data"):
            ModelManifest.model_validate(manifest)
    if locations[0] == locations[1]:
        return
    first = onnx.load(product(tmp_path / "first.onnx", "w"), load_external_data=False)
    other = first.graph.initializer.add()
    other.CopyFrom(first.graph.initializer[0])
    other.name = "other"
    for tensor, location in zip(first.graph.initializer, locations, strict=True):
        tensor.external_data[0].value = location
    (tmp_path / "both.onnx").write_bytes(first.SerializeToString())
    with pytest.raises(ExternalDataPathError):
        inspect_model(tmp_path / "both.onnx")


def test_names_that_only_look_alike_are_taken() -> None:
    check_side_by_side(["a", "b/a", "b/c", "ab", "b.c", "a.b/c", "größe", "große"])


def test_a_file_that_would_replace_another_is_not_laid_out(world: World) -> None:
    """On a disk that takes two names for one which we do not know of: here, a manifest past its checks."""
    weights, _ = world.store.put_bytes(b"weights")
    other, _ = world.store.put_bytes(b"other")
    graph, _ = world.store.put_bytes(b"graph")
    files = (
        ExternalFile(location="w", digest=weights, size_bytes=7),
        ExternalFile(location="w", digest=other, size_bytes=5),
    )
    manifest = ModelManifest.model_construct(onnx=graph, onnx_size_bytes=5, external_data=files)
    with (
        pytest.raises(ExternalDataPathError, match="would replace another file"),
        world.cache.model(manifest),
    ):
        pass


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_folders_of_a_triton_repository_differ_by_more_than_case() -> None:
    from trtfarm.errors import NotExportableError

    with pytest.raises(NotExportableError):
        check_names([Named("Detector"), Named("detector")])  # type: ignore[list-item]
    check_names([Named("detector"), Named("detector-2")])  # type: ignore[list-item]
