"""A model with its files, as the farm takes it."""

import pytest

from tests.unit.inspection.graphs import model, weight
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ExternalFile, ModelManifest
from trtfarm.contract.value import canonical_json
from trtfarm.errors import ExternalDataMissingError, ExternalDataPathError, ModelError
from trtfarm.inspection.manifest import manifest_of


def _saved(folder, *locations):
    folder.mkdir(parents=True, exist_ok=True)
    weights = [weight(f"w{number}", location=name, length="16") for number, name in enumerate(locations)]
    path = folder / "model.onnx"
    path.write_bytes(model(initializers=[weight(), *weights]).SerializeToString())
    return path


def test_manifest_without_external_data(tmp_path):
    path = _saved(tmp_path)
    manifest = manifest_of(path)
    assert manifest.digest == manifest.onnx == Digest.of_bytes(path.read_bytes())
    assert manifest.size_bytes == path.stat().st_size


def test_manifest_with_external_data(tmp_path):
    path = _saved(tmp_path, "z.bin", "data/a.bin", "z.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "z.bin").write_bytes(b"z" * 3_000_000)
    (tmp_path / "data/a.bin").write_bytes(b"a" * 16)
    steps = []
    manifest = manifest_of(path, steps.append)
    assert [file.location for file in manifest.external_data] == ["data/a.bin", "z.bin"]
    assert sum(steps) == manifest.size_bytes == path.stat().st_size + 3_000_016
    external = {"z.bin": Digest.of_bytes(b"z" * 3_000_000), "data/a.bin": Digest.of_bytes(b"a" * 16)}
    document = {"onnx": Digest.of_bytes(path.read_bytes()), "external_data": external}
    assert manifest.digest == Digest.of_bytes(canonical_json(document))
    assert ModelManifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_manifest_of_a_missing_file(tmp_path):
    path = _saved(tmp_path, "weights.bin")
    with pytest.raises(ExternalDataMissingError, match=r"'weights\.bin'") as caught:
        manifest_of(path)
    assert str(tmp_path) in caught.value.message
    (tmp_path / "weights.bin").mkdir()
    with pytest.raises(ExternalDataMissingError):
        manifest_of(path)


def test_manifest_of_a_short_file(tmp_path):
    path = _saved(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"x" * 15)
    with pytest.raises(ModelError) as caught:
        manifest_of(path)
    assert caught.value.code == "EXTERNAL_DATA_RANGE"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_out_of_the_folder(tmp_path, kind):
    (tmp_path / "private").mkdir()
    (tmp_path / "private/w.bin").write_bytes(b"x" * 16)
    path = _saved(tmp_path / "model", "data/w.bin")
    link = path.parent / "data"
    if kind == "folder":
        link.symlink_to("../private")
    else:
        link.mkdir()
        (link / "w.bin").symlink_to("../../private/w.bin")
    with pytest.raises(ExternalDataPathError, match="leaves the folder") as caught:
        manifest_of(path)
    assert "cp -rL" in caught.value.hint


def test_links_within_the_folder(tmp_path):
    path = _saved(tmp_path, "w.bin")
    (tmp_path / "real.bin").write_bytes(b"x" * 16)
    (tmp_path / "w.bin").symlink_to("real.bin")
    assert manifest_of(path).external_data[0].location == "w.bin"


def test_manifests_that_no_folder_can_hold():
    def file(location):
        return ExternalFile(location=location, digest=Digest.of_bytes(b""), size_bytes=0)

    onnx_digest = Digest.of_bytes(b"model")
    for locations in (["a", "a"], ["a", "a/b"], ["a", "a.b", "a/b/c"]):
        with pytest.raises(ValueError, match="'a' is"):
            ModelManifest(onnx=onnx_digest, onnx_size_bytes=1, external_data=tuple(map(file, locations)))
    with pytest.raises(ValueError, match="leaves the folder"):
        file("../a")
