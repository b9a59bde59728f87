"""What one key may take from the others: their jobs, the room for uploads, slots after it was revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner

from tests.integration.api.test_auth import Caller
from tests.integration.api.world import World, onnx_model, problem
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm_api import space
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.maintenance.uploads import UploadSweeper
from trtfarm_api.services.orders import OrderService
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_db.repositories.keys import KeyRepository

GIB = 2**30


class Submitter(NamedTuple):
    key_id: str
    key: str
    http: httpx.Client


@pytest.fixture
def submitter(locked: World, caller: Caller) -> Callable[..., Submitter]:
    """A new key with scope submit, and its client."""

    def make(max_running: int | None = None, max_bytes: int | None = None) -> Submitter:
        with locked.farm.database.transaction() as connection:
            keys = KeyRepository(connection)
            key_id, key = keys.create("test", Scope.SUBMIT, max_running, max_bytes)
        return Submitter(key_id, key, caller(key=key))

    return make


def submitted(locked: World, by: Submitter, request: dict[str, Any] | None = None) -> str:
    answer = by.http.post("/v1/jobs", json=request or locked.request())
    assert answer.is_success, answer.text
    return str(answer.json()["job"]["job_id"])


def command(locked: World, by: Submitter, *arguments: str, status: int = 0) -> str:
    variables = {"TRTFARM_URL": locked.url, "TRTFARM_API_KEY": by.key, "COLUMNS": "400"}
    done = CliRunner().invoke(app, list(arguments), env=variables)
    assert done.exit_code == status, done.output
    return done.output


# --- jobs ---


def test_cancelling_withdraws_ones_own(locked: World, submitter: Callable[..., Submitter]) -> None:
    one, two, stranger = submitter(), submitter(), submitter()
    request = locked.request()
    job_id = submitted(locked, one, request)
    assert submitted(locked, two, request) == job_id
    problem(stranger.http.post(f"/v1/jobs/{job_id}/cancel"), 403, "SCOPE_MISSING")
    problem(stranger.http.post(f"/v1/jobs/{job_id}/prioritize", json={"priority": 9}), 403, "SCOPE_MISSING")
    first = one.http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (first["state"], first["others"], first["cancel_requested"]) == ("queued", 1, False)
    assert two.http.post("/v1/jobs/cancel", json={}).json() == {"cancelled": 1, "shared": 0, "more": False}
    assert locked.get(f"/v1/jobs/{job_id}")["state"] == "cancelled"


def test_many_are_withdrawn_from_as_one_is(locked: World, submitter: Callable[..., Submitter]) -> None:
    one, two = submitter(), submitter()
    request = locked.request()
    submitted(locked, one)
    shared = submitted(locked, one, request)
    submitted(locked, two, request)
    said = command(locked, one, "job", "cancel", "--all-queued", "--yes")
    assert "1 jobs cancelled; 1 go on, as others have submitted them, too." in said
    assert locked.get(f"/v1/jobs/{shared}")["state"] == "queued"


def test_an_administrator_ends_a_job_for_everyone(locked: World, submitter: Callable[..., Submitter]) -> None:
    one, two = submitter(), submitter()
    request = locked.request()
    job_id = submitted(locked, one, request)
    submitted(locked, two, request)
    path = f"/v1/jobs/{job_id}/cancel"
    problem(one.http.post(path, params={"everyones": True}), 403, "SCOPE_MISSING")
    problem(locked.http.post(path), 403, "SCOPE_MISSING")
    answer = locked.http.post(path, params={"everyones": True}).json()
    assert (answer["state"], answer["others"]) == ("cancelled", 0)


def test_the_command_line_says_which_happened(locked: World, submitter: Callable[..., Submitter]) -> None:
    one, two = submitter(), submitter()
    request = locked.request()
    job_id = submitted(locked, one, request)
    submitted(locked, two, request)
    assert f"{job_id}: withdrawn; it goes on for 1 more" in command(locked, one, "job", "cancel", job_id)
    assert "--everyones" not in command(locked, one, "job", "cancel", job_id)
    command(locked, one, "job", "cancel", job_id, "--everyones", status=4)
    assert f"{job_id}: cancelled" in command(locked, two, "job", "cancel", job_id)


def test_a_campaign_of_another_key(locked: World, submitter: Callable[..., Submitter]) -> None:
    mine, stranger = submitter(), submitter()
    request = {"name": f"c-{uuid4().hex[:8]}", "models": [{"model": locked.model()}],
               "targets": [{"gpu": "cc-8.9"}]}  # fmt: skip
    campaign = mine.http.post("/v1/campaigns", json=request).json()
    path = f"/v1/campaigns/{campaign['name']}/cancel"
    problem(stranger.http.post(path), 403, "SCOPE_MISSING")
    submitted(locked, stranger, {"model": request["models"][0]["model"], "target": {"gpu": "cc-8.9"}})
    done = mine.http.post(path).json()
    assert (done["ended"], done["asked"], done["shared"]) == (0, 0, 1)


# --- standing orders ---


def order(locked: World, by: Submitter, **more: Any) -> dict[str, Any]:
    request = {"name": f"o-{uuid4().hex[:8]}", "model": locked.model(), "gpus": ["h200"], **more}
    answer = by.http.post("/v1/orders", json=request)
    assert answer.is_success, answer.text
    document: dict[str, Any] = answer.json()
    return document


def reconcile(locked: World) -> int:
    return OrderService(locked.farm, SubmissionService(locked.farm)).reconcile(check=False)


def revoke(locked: World, whose: Submitter) -> None:
    with locked.farm.database.transaction() as connection:
        KeyRepository(connection).revoke(whose.key_id)


def test_an_order_of_a_revoked_key_stops_and_says_so(
    locked: World, submitter: Callable[..., Submitter]
) -> None:
    gone, heir = submitter(), submitter()
    name = f"n{uuid4().hex[:8]}:prod"
    assert locked.http.put(f"/v1/names/{name}", json={"model": locked.model()}).is_success
    made = order(locked, gone, model=name)
    revoke(locked, gone)
    assert locked.http.put(f"/v1/names/{name}", json={"model": locked.model()}).is_success
    assert reconcile(locked) == 0
    path = f"/v1/orders/{made['name']}"
    shown = heir.http.get(path).json()
    assert (shown["problem"]["code"], shown["coverage"]["live"]) == ("KEY_REVOKED", 0)
    assert gone.key_id in shown["problem"]["message"]
    assert heir.http.get(f"{path}/report").json()["problem"]["code"] == "KEY_REVOKED"
    assert "was revoked" in command(locked, heir, "order", "list")
    assert "trtfarm order create" in command(locked, heir, "order", "show", made["name"])
    assert order(locked, heir, name=made["name"], model=name)["order_id"] == made["order_id"]
    again = heir.http.get(path).json()
    assert (again["problem"], again["coverage"]["live"]) == (None, 1)


def test_an_order_waits_for_what_others_have_submitted(
    locked: World, submitter: Callable[..., Submitter]
) -> None:
    """So that it is built though they withdraw."""
    other, standing = submitter(), submitter()
    model = locked.model()
    job_id = submitted(locked, other, {"model": model, "target": {"gpu": "h200"}})
    order(locked, standing, model=model)
    assert other.http.post(f"/v1/jobs/{job_id}/cancel").json()["others"] == 1


def test_deleting_an_order_withdraws_what_it_submitted(
    locked: World, submitter: Callable[..., Submitter]
) -> None:
    mine, other = submitter(), submitter()
    made = order(locked, mine, gpus=["h200", "l4"])
    jobs = {cell["target"]["gpu"]: cell["job_id"] for cell in made["cells"]}
    submitted(locked, other, {"model": made["digest"], "target": {"gpu": "h200"}})
    problem(other.http.delete(f"/v1/orders/{made['name']}"), 403, "SCOPE_MISSING")
    done = mine.http.delete(f"/v1/orders/{made['name']}").json()
    states = {gpu: locked.get(f"/v1/jobs/{job_id}")["state"] for gpu, job_id in jobs.items()}
    assert (done["ended"], done["shared"]) == (len(jobs) - 1, 1)
    assert states["h200"] == "queued"
    assert set(states.values()) == {"queued", "cancelled"}


# --- room ---


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Pretends that the disks have so many bytes left."""

    def left(free: float) -> None:
        monkeypatch.setattr(space, "free_bytes", lambda folder: float(free))

    return left


def announce(by: Submitter, size_bytes: int) -> httpx.Response:
    digest = str(Digest.of_bytes(uuid4().bytes))
    return by.http.post(
        "/v1/uploads", json={"digest": digest, "size_bytes": size_bytes, "kind": "external_data"}
    )


def sweep(locked: World) -> None:
    """As if nothing had come for too long."""
    settings = MaintenanceSettings(upload_hours=1e-9)
    UploadSweeper(locked.farm.database, locked.farm.settings.staging, settings).run()


@pytest.fixture(autouse=True)
def no_uploads(locked: World) -> None:
    sweep(locked)


def test_50_announced_files_do_not_fit_on_a_disk_with_67_gib(
    locked: World, submitter: Callable[..., Submitter], room: Callable[[float], None]
) -> None:
    room(67 * GIB)
    keys = [submitter(max_bytes=2000 * GIB) for _ in range(2)]
    answers = [announce(keys[number % 2], 30 * GIB) for number in range(50)]
    assert [answer.status_code for answer in answers] == [201] + [507] * 49
    problem(answers[-1], 507, "INSUFFICIENT_STORAGE")
    sweep(locked)
    assert announce(keys[1], 30 * GIB).status_code == 201, "expired ones no longer count"


def test_what_was_refused_takes_nobodys_room(
    locked: World, submitter: Callable[..., Submitter], room: Callable[[float], None]
) -> None:
    del locked
    room(67 * GIB)
    big, small = submitter(max_bytes=2000 * GIB), submitter(max_bytes=2000 * GIB)
    assert announce(big, 100 * GIB).status_code == 507
    assert announce(small, 30 * GIB).status_code == 201


def test_what_has_arrived_is_not_counted_twice(
    locked: World, submitter: Callable[..., Submitter], room: Callable[[float], None]
) -> None:
    mine = submitter()
    data = onnx_model()
    upload = mine.http.post(
        "/v1/uploads", json={"digest": str(Digest.of_bytes(data)), "size_bytes": len(data)}
    ).json()
    half = len(data) // 2
    mine.http.patch(f"/v1/uploads/{upload['upload_id']}", content=data[:half], headers={"Upload-Offset": "0"})
    other = submitter(max_bytes=GIB)
    # On one disk: what is missing of the first, all of the second, and the larger one once more in the store.
    size = 10 * len(data)
    room((len(data) - half) + 2 * size - 1)
    assert announce(other, size).status_code == 507
    room((len(data) - half) + 2 * size)
    assert announce(other, size).status_code == 201
    assert locked.farm.settings.staging.exists()


def test_one_key_cannot_announce_all_of_the_room(
    locked: World, submitter: Callable[..., Submitter], room: Callable[[float], None]
) -> None:
    del locked
    room(100 * GIB)
    greedy, modest = submitter(), submitter()
    assert announce(greedy, 30 * GIB).status_code == 201
    document = problem(announce(greedy, 30 * GIB), 403, "QUOTA_EXCEEDED")
    assert "75%" in document["detail"]
    assert "trtfarm key limit" in document["hint"]
    assert announce(modest, 10 * GIB).status_code == 201


def test_one_key_cannot_have_any_number_of_uploads(
    locked: World, submitter: Callable[..., Submitter]
) -> None:
    mine, other = submitter(), submitter()
    most = locked.farm.settings.max_open_uploads_per_key
    assert {announce(mine, 10).status_code for _ in range(most)} == {201}
    problem(announce(mine, 10), 403, "QUOTA_EXCEEDED")
    assert announce(other, 10).status_code == 201


def test_a_quota_of_bytes(locked: World, submitter: Callable[..., Submitter]) -> None:
    """What a key has brought and announced, though others have brought it too; sent again, it counts once."""
    data = onnx_model()
    owner = submitter()
    assert upload(owner, data).is_success
    mine = submitter(max_bytes=2 * len(data) + 10)
    assert upload(mine, data).json()["complete"]
    assert upload(mine, data).json()["complete"]
    problem(announce(mine, len(data) + 11), 403, "QUOTA_EXCEEDED")
    assert announce(mine, len(data)).status_code == 201
    problem(announce(mine, 11), 403, "QUOTA_EXCEEDED")
    assert upload(mine, data).json()["complete"], "it has that already"
    sweep(locked)
    assert announce(mine, len(data) + 10).status_code == 201


def test_what_others_have_brought_counts_when_it_is_brought_again(
    locked: World, submitter: Callable[..., Submitter]
) -> None:
    del locked
    data = onnx_model()
    assert upload(submitter(), data).is_success
    problem(upload(submitter(max_bytes=len(data) - 1), data), 403, "QUOTA_EXCEEDED")


def test_the_quota_is_set_on_the_command_line(locked: World, submitter: Callable[..., Submitter]) -> None:
    mine = submitter()
    database = locked.farm.database.engine.url.render_as_string(hide_password=False)

    def limit(*arguments: str) -> str:
        variables = {"TRTFARM_DATABASE_URL": database, "COLUMNS": "400"}
        done = CliRunner().invoke(app, ["key", *arguments], env=variables)
        assert done.exit_code == 0, done.output
        return done.output

    assert "upload 1.5 KiB" in limit("limit", mine.key_id, "--max-bytes", "1.5KiB")
    assert "1.5 KiB" in limit("list")
    problem(announce(mine, 1537), 403, "QUOTA_EXCEEDED")
    assert "as much as there is room for" in limit("limit", mine.key_id, "--unlimited")
    assert announce(mine, 1537).status_code == 201


def upload(by: Submitter, data: bytes) -> httpx.Response:
    """The answer to the last byte, or to the announcement if that is all."""
    answer = by.http.post("/v1/uploads", json={"digest": str(Digest.of_bytes(data)), "size_bytes": len(data)})
    if not answer.is_success or answer.json()["complete"]:
        return answer
    path = f"/v1/uploads/{answer.json()['upload_id']}"
    return by.http.patch(path, content=data, headers={"Upload-Offset": "0"})
