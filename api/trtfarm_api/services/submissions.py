"""A submission: check → key → reuse what is built, join what is being built, or queue a job."""

from __future__ import annotations

from functools import lru_cache

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition, JobKind, JobState
from trtfarm.contract.names import ModelName
from trtfarm.contract.profiles import check_profiles
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.support import refuse_unsupported
from trtfarm.contract.target import Runtime
from trtfarm.contract.v1 import JobRequest, JobView, ModelView, SubmissionView
from trtfarm.contract.value import canonical_json
from trtfarm.errors import ConflictError
from trtfarm.failpoints import reach
from trtfarm_api.farm import Farm
from trtfarm_api.services.benchmarks import benchmark_job
from trtfarm_api.services.targets import TargetResolver
from trtfarm_db.engine import CommitUnknownError
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.jobs import Caller, JobRepository, NewJob, RepeatedSubmissionError
from trtfarm_db.repositories.names import NameRepository

_MODELS_REMEMBERED = 1024
_ROUNDS = 5


def check_spec(spec: BuildSpec, model: ModelView) -> None:
    """Raises OptionUnsupportedError, ProfileRequiredError, ProfileInvalidError."""
    refuse_unsupported(spec.config, Runtime.parse(spec.target.runtime))
    check_profiles(spec.profiles, model.inputs)


class SubmissionService:
    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self.targets = TargetResolver(farm.database, farm.catalogue)
        self.model = lru_cache(maxsize=_MODELS_REMEMBERED)(self._read_model)  # models never change

    def submit(self, request: JobRequest, principal: str, idempotency_key: str | None) -> SubmissionView:
        """Durable when it returns.

        Raises:
            InvalidRequestError: by kind, before there is a job.
            ModelNotFoundError: the model was not uploaded, or nothing has that name.
            IdempotencyConflictError: the key came with another request before.
            DatabaseUnavailableError: sent again with the same key, it is the same submission.
        """
        body = canonical_json(request.model_dump(mode="json", exclude_unset=True))
        caller = Caller(principal, idempotency_key, Digest.of_bytes(body).hex if idempotency_key else None)
        job = self._job(request)
        try:
            submission = self._submit(job, caller)
        except (RepeatedSubmissionError, CommitUnknownError):
            # Made before, or perhaps just now: what the database has under this caller's key counts.
            repeated = self._repeated(caller)
            if repeated is None:
                raise
            submission = repeated
        self._farm.metrics.submissions.labels(submission.disposition).inc()
        reach("api.after_commit_before_ring")
        if submission.disposition is Disposition.CREATED:
            self._farm.bell.ring(job.queue)
        return submission

    def retry(self, job_id: str, principal: str) -> SubmissionView:
        """A new job for the spec of one that failed or was cancelled.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has not ended, or it succeeded.
        """
        with self._farm.database.transaction() as connection:
            state, job = JobRepository(connection).again(job_id)
        if state not in {JobState.FAILED, JobState.CANCELLED}:
            raise ConflictError(f"Job {job_id} is {state}; only failed and cancelled jobs are retried.")
        submission = self._submit(job, Caller(principal))
        self._farm.metrics.submissions.labels(submission.disposition).inc()
        self._farm.bell.ring(job.queue)
        return submission

    def _job(self, request: JobRequest) -> NewJob:
        if request.kind is JobKind.BENCHMARK:
            return benchmark_job(self._farm, request)
        assert request.model is not None  # noqa: S101 - checked by the request itself
        assert request.target is not None  # noqa: S101
        digest = self.digest(request.model)
        target = self.targets.resolve(request.target, wait_for_worker=request.wait_for_worker)
        spec = BuildSpec(model=digest, target=target, config=request.config, profiles=request.profiles)
        check_spec(spec, self.model(digest))
        return NewJob(spec, request.priority, request.timeout_seconds)

    def digest(self, reference: Digest | ModelName) -> Digest:
        if isinstance(reference, Digest):
            return reference
        with self._farm.database.transaction() as connection:
            return NameRepository(connection).digest(reference)

    def _read_model(self, digest: Digest) -> ModelView:
        with self._farm.database.transaction() as connection:
            return ModelRepository(connection).get(digest)

    def _repeated(self, caller: Caller) -> SubmissionView | None:
        if caller.idempotency_key is None:
            return None
        with self._farm.database.transaction() as connection:
            jobs = JobRepository(connection)
            found = jobs.find_submission(caller)
            return SubmissionView(disposition=found[1], job=jobs.get(found[0])) if found else None

    def _submit(self, new: NewJob, caller: Caller) -> SubmissionView:
        # A measurement is an event: it joins one under way, but is never answered from an old one.
        finished = self._create_or_join(new, caller, reuse=new.benchmark is None)
        if isinstance(finished, SubmissionView):
            return finished
        for _ in range(_ROUNDS):
            # Outside of a transaction: a plan that was touched is read whole before it is trusted again.
            if finished.plan is not None and self._farm.blobs.usable(finished.plan.digest):
                with self._farm.database.transaction() as connection:
                    JobRepository(connection).add_submission(caller, finished.job_id, Disposition.REUSED)
                return SubmissionView(disposition=Disposition.REUSED, job=finished)
            again = self._create_or_join(new, caller, distrusted=finished.job_id)
            if isinstance(again, SubmissionView):
                return again
            finished = again
        raise ConflictError("This build keeps changing its state; submit it again.")

    def _create_or_join(
        self, new: NewJob, caller: Caller, *, distrusted: str | None = None, reuse: bool = True
    ) -> SubmissionView | JobView:
        """A submission, or the finished job whose plan is to be checked."""
        for _ in range(_ROUNDS):
            with self._farm.database.transaction() as connection:
                jobs = JobRepository(connection)
                found = jobs.find_by_key(new.key)
                if found is not None and not found.state.terminal:
                    joined = jobs.join(caller, found.job_id)
                    if joined is not None:
                        return SubmissionView(disposition=Disposition.JOINED, job=joined)
                    continue  # it has ended since: look again
                if found is not None and reuse and found.job_id != distrusted:
                    return found
                job = jobs.create(new, caller.principal)
                if job is not None:
                    jobs.add_submission(caller, job.job_id, Disposition.CREATED)
                    reach("api.after_insert_before_commit")
                    return SubmissionView(disposition=Disposition.CREATED, job=job)
            # Somebody else created it in the meantime: look again and join.
        raise ConflictError("This build keeps changing its state; submit it again.")
