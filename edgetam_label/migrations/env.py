"""Alembic's entry: runs the revisions on the connection that `upgrade` was given."""

from __future__ import annotations

from alembic import context

from edgetam_label.migrations import VERSION_TABLE
from edgetam_label.session_schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    # SQLite can roll back a CREATE TABLE; Alembic assumes otherwise by default.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
