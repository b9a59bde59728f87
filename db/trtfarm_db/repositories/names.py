"""Names of models."""

from __future__ import annotations

import difflib
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update

from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName, ModelSummary, NameMove, NameView
from trtfarm.errors import ModelNotFoundError, NameNotFoundError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import Model, ModelTag, ModelTagMove

_MOVES = 100
_NEAR = 500  # names that one that is not there is compared with


class NameRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def digest(self, reference: Digest | ModelName) -> Digest:
        """What a reference stands for now; a digest is taken as it is.

        Raises:
            NameNotFoundError: nothing has that name.
        """
        if isinstance(reference, Digest):
            return reference
        found = self._connection.scalar(select(ModelTag.model_digest).where(*_is(reference)))
        if found is None:
            raise self._unknown(reference)
        return Digest(found)

    def get(self, reference: ModelName) -> NameView:
        """With its last moves; also one that was taken away.

        Raises:
            NameNotFoundError: there never was that name.
        """
        query = (
            select(ModelTagMove)
            .where(ModelTagMove.name == reference.name, ModelTagMove.tag == reference.tag)
            .order_by(ModelTagMove.id.desc())
            .limit(_MOVES)
        )
        moves = tuple(
            NameMove(model=row.model_digest, previous=row.previous_digest, at=row.at, by=row.principal)
            for row in self._connection.execute(query)
        )
        if not moves:
            raise self._unknown(reference)
        return NameView(reference=reference, model=moves[0].model, moved_at=moves[0].at, moves=moves)

    def page(
        self,
        *,
        name: str | None = None,
        model: Digest | None = None,
        after: ModelName | None = None,
        limit: int = 50,
    ) -> list[NameView]:
        """In the order of the database's alphabet."""
        query = select(ModelTag).order_by(ModelTag.name, ModelTag.tag).limit(limit)
        if name:
            query = query.where(ModelTag.name == name)
        if model:
            query = query.where(ModelTag.model_digest == str(model))
        if after:
            query = query.where(tuple_(ModelTag.name, ModelTag.tag) > tuple_(after.name, after.tag))
        return [
            NameView(reference=_name(row), model=row.model_digest, moved_at=row.moved_at)
            for row in self._connection.execute(query)
        ]

    def move(self, reference: ModelName, model: Digest, principal: str) -> bool:
        """Makes the name stand for ``model``; False if it did already.

        Raises:
            ModelNotFoundError: the farm does not have the model.
        """
        if not self._connection.scalar(select(Model.digest).where(Model.digest == str(model))):
            raise ModelNotFoundError(f"The farm does not have the model {model}; upload it first.")
        made = self._connection.execute(
            dialect_insert(self._connection.dialect.name, ModelTag)
            .values(name=reference.name, tag=reference.tag, model_digest=str(model))
            .on_conflict_do_nothing(index_elements=[ModelTag.name, ModelTag.tag])
            .returning(ModelTag.name)
        ).first()
        if made is not None:
            self._record(reference, model, None, principal)
            return True
        previous = self._locked(reference)
        if previous is None:  # taken away since the line before
            return self.move(reference, model, principal)
        if previous == model:
            return False
        self._connection.execute(
            update(ModelTag).where(*_is(reference)).values(model_digest=str(model), moved_at=db_now())
        )
        self._record(reference, model, previous, principal)
        return True

    def remove(self, reference: ModelName, principal: str) -> None:
        """Raises NameNotFoundError."""
        previous = self._locked(reference)
        if previous is None:
            raise self._unknown(reference)
        self._connection.execute(delete(ModelTag).where(*_is(reference)))
        self._record(reference, None, previous, principal)

    def models(
        self, *, name: str | None = None, after: Digest | None = None, limit: int = 50
    ) -> list[ModelSummary]:
        """All models, newest first, with their names; ``name``: only those with a tag of that name."""
        query = select(Model).order_by(Model.created_at.desc(), Model.digest.desc()).limit(limit)
        if name:
            query = query.where(
                Model.digest.in_(select(ModelTag.model_digest).where(ModelTag.name == name).distinct())
            )
        if after:
            last = select(Model.created_at).where(Model.digest == str(after)).scalar_subquery()
            query = query.where(tuple_(Model.created_at, Model.digest) < tuple_(last, str(after)))
        rows = self._connection.execute(query).all()
        names: dict[str, list[ModelName]] = {row.digest: [] for row in rows}
        tags = select(ModelTag).where(ModelTag.model_digest.in_(list(names)))
        for row in self._connection.execute(tags.order_by(ModelTag.name, ModelTag.tag)):
            names[row.model_digest].append(_name(row))
        return [
            ModelSummary(
                digest=row.digest,
                size_bytes=ModelManifest.model_validate(row.manifest).size_bytes,
                names=tuple(names[row.digest]),
                created_at=row.created_at,
            )
            for row in rows
        ]

    def _locked(self, reference: ModelName) -> Digest | None:
        found = self._connection.scalar(
            select(ModelTag.model_digest).where(*_is(reference)).with_for_update()
        )
        return Digest(found) if found else None

    def _record(
        self, reference: ModelName, model: Digest | None, previous: Digest | None, principal: str
    ) -> None:
        self._connection.execute(
            insert(ModelTagMove).values(
                name=reference.name,
                tag=reference.tag,
                model_digest=model and str(model),
                previous_digest=previous and str(previous),
                principal=principal,
            )
        )

    def _unknown(self, reference: ModelName) -> NameNotFoundError:
        rows = self._connection.execute(
            select(ModelTag.name, ModelTag.tag).order_by(ModelTag.moved_at.desc()).limit(_NEAR)
        )
        known = [f"{row.name}:{row.tag}" for row in rows]
        near = difflib.get_close_matches(reference, known, n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else "trtfarm model list shows the names there are."
        return NameNotFoundError(f"No model of the farm is called {reference}.", hint=hint)


def _is(reference: ModelName) -> tuple[Any, ...]:
    return ModelTag.name == reference.name, ModelTag.tag == reference.tag


def _name(row: Row[Any]) -> ModelName:
    return ModelName(f"{row.name}:{row.tag}")
