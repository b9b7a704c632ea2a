"""People's final annotations from elsewhere, kept word for word: the truth for exports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, select, update

from edgetam_label.database import Database
from edgetam_label.session_schema import ANNOTATIONS, pack_document, unpack_document
from edgetam_label.session_types import ExternalAnnotation

_PAGE_ROWS = 64


class ExternalAnnotations:
    """Annotations by (source_key, annotation_id); a new version replaces the old one whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, annotation: ExternalAnnotation) -> bool:
        """Store it; False when a newer version is here already: webhooks overtake each other."""
        c = ANNOTATIONS.c
        mine = and_(
            c.source_key == annotation.source_key, c.annotation_id == annotation.annotation_id
        )
        values = {
            "created_by": annotation.created_by,
            "updated_at": annotation.updated_at,
            "payload": pack_document(dict(annotation.payload)),
        }
        with self._database.write() as connection:
            query = select(c.updated_at).where(mine).with_for_update()
            stored = connection.execute(query).one_or_none()
            if stored is None:
                key = {
                    "source_key": annotation.source_key,
                    "annotation_id": annotation.annotation_id,
                }
                connection.execute(insert(ANNOTATIONS).values(**key, **values))
                return True
            known, given = stored.updated_at, annotation.updated_at
            if known is not None and given is not None and given < known:
                return False
            connection.execute(update(ANNOTATIONS).where(mine).values(values))
            return True

    def of(self, source_key: str) -> list[ExternalAnnotation]:
        """All annotations of one task, by annotation id."""
        return list(self._stream(ANNOTATIONS.c.source_key == source_key))

    def under(self, prefix: str) -> Iterator[ExternalAnnotation]:
        """Those of every task whose key begins with `prefix`, by key and id; streaming."""
        start = func.substr(ANNOTATIONS.c.source_key, 1, len(prefix))
        return self._stream(start == prefix)

    def delete(self, source_key: str, annotation_ids: Iterable[str] | None = None) -> int:
        """Forget some or all annotations of a task; returns how many there were."""
        mine = ANNOTATIONS.c.source_key == source_key
        with self._database.write() as connection:
            if annotation_ids is None:
                return int(connection.execute(delete(ANNOTATIONS).where(mine)).rowcount)
            statements = (
                delete(ANNOTATIONS).where(mine, ANNOTATIONS.c.annotation_id == annotation_id)
                for annotation_id in annotation_ids
            )
            return sum(int(connection.execute(statement).rowcount) for statement in statements)

    def _stream(self, where: Any) -> Iterator[ExternalAnnotation]:
        c = ANNOTATIONS.c
        query = select(ANNOTATIONS).where(where).order_by(c.source_key, c.annotation_id)
        page = query.limit(_PAGE_ROWS)
        while True:
            with self._database.read() as connection:
                rows = connection.execute(page).all()
            yield from map(_read, rows)
            if len(rows) < _PAGE_ROWS:
                return
            key, last = rows[-1].source_key, rows[-1].annotation_id
            after = (c.source_key > key) | and_(c.source_key == key, c.annotation_id > last)
            page = query.where(after).limit(_PAGE_ROWS)


def _read(row: Row[Any]) -> ExternalAnnotation:
    return ExternalAnnotation(
        source_key=row.source_key,
        annotation_id=row.annotation_id,
        payload=unpack_document(row.payload),
        created_by=row.created_by,
        updated_at=row.updated_at,
    )
