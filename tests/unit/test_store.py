"""The artifact store on disk and over HTTP against an S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from trtfarm.contract.digest import Digest
from trtfarm.errors import (
    BlobCorruptError,
    BlobMissingError,
    ConfigurationError,
    DigestMismatchError,
    StorageFullError,
    UnavailableError,
)
from trtfarm.store import ArtifactStore, StoreSettings, artifact_store

BUCKET = "trtfarm-artifacts"
SMALL = b"a plan" * 1000
LARGE = os.urandom(1 << 20) * 20  # three parts
ABSENT = Digest.of_bytes(b"never stored")


@dataclass
class Place:
    """A store, and a back door to it."""

    settings: StoreSettings
    s3: Any = None

    @property
    def root(self) -> Path:
        return Path(self.settings.url.removeprefix("file://"))

    @property
    def _prefix(self) -> str:
        return self.settings.url.removeprefix(f"s3://{BUCKET}/") + "/"

    def keys(self) -> list[str]:
        if not self.s3:
            return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=self._prefix).get("Contents", [])
        return sorted(each["Key"].removeprefix(self._prefix) for each in found)

    def unfinished_uploads(self) -> list[Any]:
        return self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) if self.s3 else []

    def overwrite(self, digest: Digest, data: bytes) -> None:
        key = f"sha256/{digest.hex[:2]}/{digest.hex[2:]}"
        if self.s3:
            self.s3.put_object(Bucket=BUCKET, Key=self._prefix + key, Body=data)
        else:
            (self.root / key).write_bytes(data)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def s3_options(endpoint: str) -> dict[str, str]:
    keys = {"access_key_id": "someone", "secret_access_key": "wonderland"}
    return keys | {"endpoint": endpoint, "region": "us-east-1", "allow_http": "true"}


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return Place(StoreSettings(url=f"file://{tmp_path}/store"))
    endpoint = request.getfixturevalue("s3_endpoint")
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    s3.create_bucket(Bucket=BUCKET)
    return Place(StoreSettings(url=f"s3://{BUCKET}/{tmp_path.name}", options=s3_options(endpoint)), s3)


@pytest.fixture
def store(place: Place) -> ArtifactStore:
    return ArtifactStore.open(place.settings)


def in_file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


def streamed(store: ArtifactStore, digest: Digest, *args: Any, **kwargs: Any) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [bytes(chunk) async for chunk in store.stream(digest, *args, **kwargs)]

    return asyncio.run(collect())


def run_child(*arguments: str, code: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("data", [b"", b"x", SMALL, b"8" * (8 << 20), b"9" * ((8 << 20) + 1), LARGE])
def test_round_trip(store: ArtifactStore, place: Place, tmp_path: Path, data: bytes) -> None:
    digest = Digest.of_bytes(data)
    assert store.stat(digest) is None
    blob = store.put_file(in_file(tmp_path, data), digest, len(data))
    assert (blob.digest, blob.size_bytes) == (digest, len(data))
    assert blob.etag
    assert store.stat(digest) == blob
    assert place.keys() == [f"sha256/{digest.hex[:2]}/{digest.hex[2:]}"]
    assert store.url(digest) == f"{place.settings.url}/{place.keys()[0]}"
    assert store.read(digest) == data
    assert b"".join(streamed(store, digest)) == data
    assert store.verify(digest)
    copy = tmp_path / "copy"
    copy.write_bytes(b"older")
    store.fetch(digest, copy, len(data))
    assert copy.read_bytes() == data
    assert copy.stat().st_mode & 0o777 == 0o644
    store.delete(digest)
    store.delete(digest)
    assert store.stat(digest) is None
    assert place.keys() == []


def test_put_bytes(store: ArtifactStore) -> None:
    digest, blob = store.put_bytes(SMALL)
    assert digest == Digest.of_bytes(SMALL)
    assert store.stat(digest) == blob


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize("change", ["other bytes", "shorter", "longer"])
def test_wrong_bytes_leave_nothing_visible(
    store: ArtifactStore, place: Place, tmp_path: Path, data: bytes, change: str
) -> None:
    found = {"other bytes": data[:-1] + b"!", "shorter": data[:-1], "longer": data + b"!"}[change]
    with pytest.raises(DigestMismatchError):
        store.put_file(in_file(tmp_path, found), Digest.of_bytes(data), len(data))
    assert place.keys() == []
    assert place.unfinished_uploads() == []


def test_a_wrong_file_does_not_replace_the_right_blob(store: ArtifactStore, tmp_path: Path) -> None:
    digest, blob = store.put_bytes(LARGE)
    with pytest.raises(DigestMismatchError):
        store.put_file(in_file(tmp_path, LARGE[::-1]), digest, len(LARGE))
    assert store.stat(digest) == blob
    assert store.verify(digest)


@pytest.mark.parametrize("damage", [LARGE[:-1] + b"!", LARGE[:-1], b""])
def test_damage_is_noticed_and_repaired(
    store: ArtifactStore, place: Place, tmp_path: Path, damage: bytes
) -> None:
    digest, blob = store.put_bytes(LARGE)
    place.overwrite(digest, damage)
    damaged = store.stat(digest)
    assert damaged
    assert damaged.etag != blob.etag
    assert not store.verify(digest)
    copy = tmp_path / "copy"
    copy.write_bytes(b"older")
    for size_bytes in (None, len(LARGE)):
        with pytest.raises(BlobCorruptError):
            store.fetch(digest, copy, size_bytes)
    with pytest.raises(BlobCorruptError):
        store.read(digest)
    assert copy.read_bytes() == b"older"
    assert list(tmp_path.glob(".trtfarm-*")) == []
    repaired = store.put_file(in_file(tmp_path, LARGE), digest, len(LARGE))
    assert repaired.etag != damaged.etag
    store.fetch(digest, copy)
    assert copy.read_bytes() == LARGE


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (5, 9), (0, None), (len(LARGE) - 3, None), (7, 10**12), (3 << 20, 17 << 20)]
)
@pytest.mark.parametrize("chunk_bytes", [None, 1 << 20])
def test_ranges(store: ArtifactStore, start: int, end: int | None, chunk_bytes: int | None) -> None:
    digest, _ = store.put_bytes(LARGE)
    chunks = streamed(store, digest, start, end, chunk_bytes=chunk_bytes)
    assert b"".join(chunks) == LARGE[start:end]
    assert max(map(len, chunks)) <= (chunk_bytes or 8 << 20)


def test_empty_ranges(store: ArtifactStore) -> None:
    digest, _ = store.put_bytes(SMALL)
    for start, end in [(0, 0), (5, 5), (len(SMALL), None), (10**12, None), (9, 3)]:
        assert streamed(store, digest, start, end) == []


def test_a_stream_can_be_left(store: ArtifactStore) -> None:
    digest, _ = store.put_bytes(LARGE)

    async def leave() -> int:
        async for chunk in store.stream(digest, chunk_bytes=1 << 20):
            return len(chunk)
        return 0

    assert asyncio.run(leave()) == 1 << 20


def test_what_is_missing(store: ArtifactStore, tmp_path: Path) -> None:
    store.check()
    assert store.stat(ABSENT) is None
    for action in (store.read, store.verify, store.quarantine, lambda d: store.fetch(d, tmp_path / "copy")):
        with pytest.raises(BlobMissingError):
            action(ABSENT)
    with pytest.raises(BlobMissingError):
        streamed(store, ABSENT)
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "no such file", ABSENT, 1)
    digest, _ = store.put_bytes(SMALL)
    with pytest.raises(FileNotFoundError):
        store.fetch(digest, tmp_path / "no such folder" / "copy")


@pytest.mark.parametrize("copy_limit_bytes", [5 << 30, 1 << 20], ids=["copied inside", "streamed"])
def test_quarantine(
    store: ArtifactStore, place: Place, monkeypatch: pytest.MonkeyPatch, copy_limit_bytes: int
) -> None:
    monkeypatch.setattr(artifact_store, "COPY_LIMIT_BYTES", copy_limit_bytes)
    digest, _ = store.put_bytes(LARGE)
    place.overwrite(digest, LARGE[::-1])
    aside = store.quarantine(digest).removeprefix(place.settings.url + "/")
    assert store.stat(digest) is None
    assert aside.startswith(f"quarantine/{digest.hex}.")
    assert place.keys() == [aside]
    store.put_bytes(LARGE)
    assert store.verify(digest)
    store.quarantine(digest)
    assert len(place.keys()) == 2


def test_concurrent_puts_of_one_blob(store: ArtifactStore, place: Place, tmp_path: Path) -> None:
    source, digest = in_file(tmp_path, LARGE), Digest.of_bytes(LARGE)
    ready, done = threading.Barrier(6), threading.Event()

    def put() -> int:
        ready.wait()
        return store.put_file(source, digest, len(LARGE)).size_bytes

    def watch() -> int:
        """Every blob that is seen is whole."""
        seen = 0
        while not done.is_set() or not seen:
            if store.stat(digest):
                assert store.verify(digest)
                seen += 1
        return seen

    with ThreadPoolExecutor(7) as pool:
        watcher = pool.submit(watch)
        writers = [pool.submit(put) for _ in range(6)]
        assert [each.result() for each in writers] == [len(LARGE)] * 6
        done.set()
        assert watcher.result() > 0
    assert len(place.keys()) == 1


MEMORY = r"""
import asyncio, re, sys
from pathlib import Path
from trtfarm.contract.digest import Digest
from trtfarm.store import ArtifactStore, StoreSettings
settings, source = StoreSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])
with source.open("rb") as file:
    digest = Digest.of_file(file)
store = ArtifactStore.open(settings)
store.put_file(source, digest, source.stat().st_size)
assert store.verify(digest)
store.fetch(digest, source.with_name("copy"))
async def stream():
    return sum([len(chunk) async for chunk in store.stream(digest)])
assert asyncio.run(stream()) == source.stat().st_size
# Not getrusage: its maximum starts with that of the parent at the fork.
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_flat(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for number in range(200):
            file.write(hashlib.sha256(bytes([number])).digest() * (1 << 15))
    child = run_child(place.settings.model_dump_json(), str(source), code=MEMORY)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 180, "MiB at the peak, for 200 MiB of data"


PUT = """
import sys
from pathlib import Path
from trtfarm.contract.digest import Digest
from trtfarm.store import ArtifactStore, StoreSettings
store = ArtifactStore.open(StoreSettings(url=sys.argv[1]))
try:
    store.put_file(Path(sys.argv[2]), Digest(sys.argv[3]), int(sys.argv[4]))
except Exception as error:
    print(type(error).__name__, end="")
"""
FETCH = PUT.replace(
    "put_file(Path(sys.argv[2]), Digest(sys.argv[3]), int(sys.argv[4]))",
    "fetch(Digest(sys.argv[3]), Path(sys.argv[2]))",
)


def tiny_disk(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A folder, and what to put before a command so that 4 MiB fit in there. Prints what files are left."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = (
        f'mount -t tmpfs -o size=4m tmpfs {folder} && "$@"; status=$?; find {folder} -type f; exit $status'
    )
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    return folder, prefix


@pytest.mark.parametrize("data", [LARGE, LARGE[: 5 << 20]], ids=["in parts", "at once"])
def test_a_full_disk(tmp_path: Path, data: bytes) -> None:
    folder, prefix = tiny_disk(tmp_path)
    arguments = (f"file://{folder}", str(in_file(tmp_path, data)), Digest.of_bytes(data), str(len(data)))
    child = run_child(*arguments, code=PUT, prefix=prefix)
    assert child.stdout == StorageFullError.__name__, child.stderr


def test_a_full_destination(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    digest, _ = ArtifactStore.open(StoreSettings(url=url)).put_bytes(LARGE)
    folder, prefix = tiny_disk(tmp_path)
    child = run_child(url, str(folder / "copy"), digest, code=FETCH, prefix=prefix)
    assert child.stdout == StorageFullError.__name__, child.stderr


def test_a_killed_writer(tmp_path: Path) -> None:
    place = Place(StoreSettings(url=f"file://{tmp_path}/store"))
    store, digest = ArtifactStore.open(place.settings), Digest.of_bytes(LARGE)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", PUT, place.settings.url, str(pipe), digest, str(len(LARGE))]
    with subprocess.Popen(command) as writer, pipe.open("wb") as source:
        source.write(LARGE[:-1])
        source.flush()
        deadline = time.monotonic() + 30
        while not place.keys() and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.kill()
    assert store.stat(digest) is None
    assert len(place.keys()) == 1
    assert store.sweep(older_than_seconds=3600) == 0
    assert store.sweep(older_than_seconds=0) > 0
    assert place.keys() == []


def test_a_bucket_that_is_not_there(s3_endpoint: str) -> None:
    store = ArtifactStore.open(StoreSettings(url="s3://no-such-bucket", options=s3_options(s3_endpoint)))
    with pytest.raises(ConfigurationError, match="does not exist"):
        store.check()
    with pytest.raises(ConfigurationError, match="does not exist"):
        store.put_bytes(SMALL)


def test_a_folder_that_went_away(tmp_path: Path) -> None:
    store = ArtifactStore.open(StoreSettings(url=f"file://{tmp_path}/store"))
    (tmp_path / "store").rmdir()
    with pytest.raises(ConfigurationError, match="does not exist"):
        store.check()


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        store = ArtifactStore.open(StoreSettings(url="s3://bucket", options=s3_options(endpoint)))
        with pytest.raises(UnavailableError) as caught:
            store.stat(ABSENT)
    assert "wonderland" not in str(caught.value)


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        ArtifactStore.open(StoreSettings(url="s3://bucket", options={"colour": "red"}))


@pytest.mark.parametrize(
    "url",
    ["", "/tmp/x", "file://relative/x", "file:///", "ftp://host/x", "s3://", "s3://k:s@bucket", "s3://b?x=1"],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        StoreSettings(url=url)


def test_a_folder_with_a_blank(tmp_path: Path) -> None:
    store = ArtifactStore.open(StoreSettings(url=f"file://{tmp_path}/a%20b"))
    digest, _ = store.put_bytes(SMALL)
    assert (tmp_path / "a b" / "sha256" / digest.hex[:2] / digest.hex[2:]).read_bytes() == SMALL


def test_secrets_are_not_shown() -> None:
    settings = StoreSettings(url="s3://bucket", options=s3_options("http://127.0.0.1:9"))
    assert "wonderland" not in f"{settings!r} {settings}"
    assert "us-east-1" in repr(settings)
