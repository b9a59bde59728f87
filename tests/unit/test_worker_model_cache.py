"""Models on a worker's disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.together import together
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ExternalFile, ModelManifest
from trtfarm.errors import BlobCorruptError, BlobMissingError
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_worker.model_cache import MODEL_FILE, UPLOADED, ModelCache

SECONDS = 20


class CountingStore:
    """The real store; ``fetched`` has what was asked of it."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self.fetched: list[Digest] = []

    def fetch(self, digest: Digest, destination: Path, size_bytes: int | None = None) -> None:
        self.fetched.append(digest)
        self._store.fetch(digest, destination, size_bytes)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "models"
        self.artifacts = ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri()))
        self.store = CountingStore(self.artifacts)

    def cache(self, limit_bytes: int = 10**9) -> ModelCache:
        return ModelCache(self.folder, self.store, limit_bytes)  # type: ignore[arg-type]

    def model(self, content: bytes, **external: bytes) -> ModelManifest:
        digest, _ = self.artifacts.put_bytes(content)
        files = [
            ExternalFile(
                location=f"weights/{name}", digest=self.artifacts.put_bytes(data)[0], size_bytes=len(data)
            )
            for name, data in external.items()
        ]
        return ModelManifest(onnx=digest, onnx_size_bytes=len(content), external_data=tuple(files))

    def kept(self) -> set[str]:
        """Digests of the models on the disk, and whatever else lies there but lock files."""
        return {path.name for path in self.folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def use(cache: ModelCache, manifest: ModelManifest) -> bytes:
    with cache.model(manifest) as model:
        return model.onnx.read_bytes()


@contextlib.contextmanager
def lock_of(world: World, manifest: ModelManifest, kind: int) -> Iterator[None]:
    """As another worker would hold it."""
    descriptor = os.open(world.folder / f".{manifest.digest.hex}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def test_fetched_once_and_laid_out_as_the_graph_names_it(world: World) -> None:
    manifest, cache = world.model(b"graph", a=b"one", b=b"two"), world.cache()
    for _ in range(2):
        with cache.model(manifest) as model:
            assert model.onnx.read_bytes() == b"graph"
            assert (model.onnx.parent / "weights/a").read_bytes() == b"one"
            assert (model.onnx.parent / "weights/b").read_bytes() == b"two"
    assert len(world.store.fetched) == 3
    assert world.kept() == {manifest.digest.hex}


def test_two_use_one_model_at_the_same_time(world: World) -> None:
    """Slots that build one model for several targets must not wait for each other."""
    manifest = world.model(b"graph")
    inside = threading.Barrier(2, timeout=SECONDS)

    def build() -> bytes:
        with world.cache().model(manifest) as model:
            inside.wait()
            return model.onnx.read_bytes()

    assert together([build, build]) == [b"graph", b"graph"]
    assert len(world.store.fetched) == 1


def test_many_that_want_one_model_fetch_it_once(world: World) -> None:
    manifest = world.model(b"graph", a=b"one")
    calls = [lambda: use(world.cache(), manifest) for _ in range(8)]
    assert together(calls) == [b"graph"] * 8
    assert len(world.store.fetched) == 2


def test_the_least_recently_used_go_first(world: World) -> None:
    cache = world.cache(limit_bytes=250)
    one, two, three = (world.model(letter * 100) for letter in (b"a", b"b", b"c"))
    use(cache, one)
    use(cache, two)
    os.utime(world.folder / one.digest.hex, (2_000_000_000, 2_000_000_000))
    use(cache, three)
    assert world.kept() == {one.digest.hex, three.digest.hex}
    assert use(cache, two) == b"b" * 100


def test_what_is_in_use_stays_however_small_the_limit(world: World) -> None:
    cache = world.cache(limit_bytes=0)
    one, two = world.model(b"a" * 100), world.model(b"b" * 100)
    with cache.model(one) as model:
        assert use(cache, two) == b"b" * 100
        assert model.onnx.read_bytes() == b"a" * 100
    use(cache, world.model(b"c"))
    assert one.digest.hex not in world.kept()


def test_a_lost_blob_leaves_nothing_that_looks_like_a_model(world: World) -> None:
    manifest = world.model(b"graph", a=b"one", b=b"two")
    world.artifacts.delete(manifest.external_data[1].digest)
    with pytest.raises(BlobMissingError):
        use(world.cache(), manifest)
    assert manifest.digest.hex not in world.kept()
    world.artifacts.put_bytes(b"two")
    assert use(world.cache(), manifest) == b"graph"


def test_a_corrupt_blob_is_not_used(world: World, tmp_path: Path) -> None:
    manifest = world.model(b"graph")
    blob = tmp_path / "artifacts/sha256" / manifest.onnx.hex[:2] / manifest.onnx.hex[2:]
    blob.chmod(0o600)
    blob.write_bytes(b"grapy")
    with pytest.raises(BlobCorruptError):
        use(world.cache(), manifest)
    assert manifest.digest.hex not in world.kept()


def test_what_a_killed_worker_left_half_fetched_is_fetched_anew(world: World) -> None:
    manifest = world.model(b"graph", a=b"one")
    partial = world.folder / f".{manifest.digest.hex}.partial"
    (partial / UPLOADED).mkdir(parents=True)
    (partial / UPLOADED / MODEL_FILE).write_bytes(b"gr")
    assert use(world.cache(), manifest) == b"graph"
    assert world.kept() == {manifest.digest.hex}


def test_what_another_version_left_is_fetched_anew(world: World) -> None:
    manifest = world.model(b"graph")
    (world.folder / manifest.digest.hex).mkdir(parents=True)
    (world.folder / manifest.digest.hex / "model.onnx.trtfarm").write_bytes(b"another")
    assert use(world.cache(), manifest) == b"graph"


def test_what_killed_workers_left_is_removed_unless_it_is_being_fetched(world: World) -> None:
    abandoned, fetching, wanted = (world.model(letter) for letter in (b"a", b"b", b"c"))
    for manifest in (abandoned, fetching):
        (world.folder / f".{manifest.digest.hex}.partial").mkdir(parents=True)
    with lock_of(world, fetching, fcntl.LOCK_EX):
        use(world.cache(), wanted)
        assert world.kept() == {f".{fetching.digest.hex}.partial", wanted.digest.hex}


def test_waits_for_a_fetch_under_way(world: World) -> None:
    manifest = world.model(b"graph")
    world.folder.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with lock_of(world, manifest, fcntl.LOCK_EX):
            waiting = pool.submit(use, world.cache(), manifest)
            assert not waiting.done()
        assert waiting.result(SECONDS) == b"graph"


def test_the_lock_of_a_killed_worker_is_free(world: World) -> None:
    manifest = world.model(b"graph")
    world.folder.mkdir()
    code = f"""
        import fcntl, os
        descriptor = os.open({str(world.folder / f".{manifest.digest.hex}.lock")!r}, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        print("held", flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait(SECONDS)
    assert use(world.cache(), manifest) == b"graph"


def test_room_is_made_of_what_nobody_uses_oldest_first(world: World) -> None:
    cache = world.cache()
    old, used, new = (world.model(name * 1000) for name in (b"a", b"b", b"c"))
    for age, manifest in ((300, old), (200, used), (100, new)):
        use(cache, manifest)
        then = time.time() - age
        os.utime(world.folder / manifest.digest.hex, (then, then))
    with lock_of(world, used, fcntl.LOCK_SH):
        cache.make_room(1)
        assert world.kept() == {used.digest.hex, new.digest.hex}
        cache.make_room(2000)
        assert world.kept() == {used.digest.hex}
    cache.make_room(0)
    assert world.kept() == {used.digest.hex}
    ModelCache(world.folder / "not made yet", world.artifacts, 0).make_room(1)
