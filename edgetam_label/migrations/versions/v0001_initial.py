"""Sessions, media, objects, events, masks, jobs, annotations.

Written out, not taken from `session_schema`: a released revision never changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgetam_label.session_schema import LongBinary, LongText, UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "annotations",
        sa.Column("source_key", sa.String(length=255), nullable=False),
        sa.Column("annotation_id", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=True),
        sa.Column("updated_at", UTCDateTime(), nullable=True),
        sa.Column("payload", LongBinary, nullable=False),
        sa.PrimaryKeyConstraint("source_key", "annotation_id", name=op.f("pk_annotations")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("checkpoint_sha256", sa.String(length=64), nullable=False),
        sa.Column("config_sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_index(
        "uq_models_identity", "models", ["name", "checkpoint_sha256", "config_sha256"], unique=True
    )
    op.create_table(
        "sessions",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=True),
        sa.Column("name", LongText, nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_sessions_models")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_sessions")),
        sa.UniqueConstraint("id", name=op.f("uq_sessions_id")),
        sa.UniqueConstraint("key", name=op.f("uq_sessions_key")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "events",
        sa.Column("session_pk", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parent", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("obj_id", sa.Integer(), nullable=False),
        sa.Column("frame_idx", sa.Integer(), nullable=True),
        sa.Column("payload", LongText, nullable=False),
        sa.Column("in_force", sa.Boolean(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_pk"], ["sessions.pk"], name=op.f("fk_events_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_pk", "seq", name=op.f("pk_events")),
    )
    op.create_index(
        "ix_events_in_force",
        "events",
        ["session_pk", "in_force", "obj_id", "frame_idx"],
        unique=False,
    )
    op.create_table(
        "jobs",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("session_pk", sa.Integer(), nullable=False),
        sa.Column("direction", sa.String(length=16), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("stop", sa.Integer(), nullable=True),
        sa.Column("next_frame", sa.Integer(), nullable=False),
        sa.Column("objects", LongText, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", LongText, nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", UTCDateTime(), nullable=True),
        sa.Column("payload", LongText, nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_pk"], ["sessions.pk"], name=op.f("fk_jobs_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_jobs_session_pk"), "jobs", ["session_pk"], unique=False)
    op.create_index(op.f("ix_jobs_state"), "jobs", ["state"], unique=False)
    op.create_table(
        "media",
        sa.Column("session_pk", sa.Integer(), nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("num_frames", sa.Integer(), nullable=False),
        sa.Column("time_base_num", sa.Integer(), nullable=False),
        sa.Column("time_base_den", sa.Integer(), nullable=False),
        sa.Column("pts", LongBinary, nullable=False),
        sa.Column("names", LongBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_pk"], ["sessions.pk"], name=op.f("fk_media_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_pk", name=op.f("pk_media")),
    )
    op.create_index(op.f("ix_media_sha256"), "media", ["sha256"], unique=False)
    op.create_table(
        "objects",
        sa.Column("session_pk", sa.Integer(), nullable=False),
        sa.Column("obj_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", LongText, nullable=False),
        sa.Column("color", sa.String(length=7), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("attributes", LongText, nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_pk"], ["sessions.pk"], name=op.f("fk_objects_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_pk", "obj_id", name=op.f("pk_objects")),
    )
    op.create_index("ix_objects_external", "objects", ["session_pk", "external_id"], unique=False)
    op.create_table(
        "masks",
        sa.Column("session_pk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("obj_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("counts", LongBinary, nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "status IN ('tracked', 'prompted', 'absent', 'approved')", name=op.f("ck_masks_status")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_masks_models")),
        sa.ForeignKeyConstraint(
            ["session_pk", "obj_id"],
            ["objects.session_pk", "objects.obj_id"],
            name=op.f("fk_masks_objects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_pk", "obj_id", "frame_idx", name=op.f("pk_masks")),
    )
    op.create_index("ix_masks_frame", "masks", ["session_pk", "frame_idx", "obj_id"], unique=False)


def downgrade() -> None:
    for table in ("annotations", "jobs", "masks", "events", "objects", "media", "sessions"):
        op.drop_table(table)
    op.drop_table("models")
