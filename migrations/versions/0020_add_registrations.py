"""Add the registrations of uploaded models, and let a job be of no version: it makes one.

Revision: 0020, after 0019.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_KINDS = (
    "What the job does: predict, batch, csv, explain, explain_batch, replay",
    "What the job does: predict, batch, csv, explain, explain_batch, replay, register",
)
_VERSIONS = ("The exact version that it runs on", "The exact version that it runs on; null where it registers one")
_COLUMN = "model_version_id INTEGER"  # as SQLite has it in the text of the table


def upgrade() -> None:
    """Apply the change."""
    _change_jobs(nullable=True)
    op.create_table(
        "registrations",
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("name", sa.String(63), nullable=False, comment="Name of the model"),
        sa.Column("options", JSON, nullable=False, comment="Fields of the form, as `registry add` takes them"),
        sa.Column(
            "files",
            JSON,
            nullable=False,
            comment="Uploaded files: field of the form to {name, filename, bytes, sha256}",
        ),
        sa.Column("sha256", sa.String(64), nullable=False, comment="SHA-256 of the artefact as it was uploaded"),
        sa.Column("byte_count", sa.BigInteger(), nullable=False, comment="Size of all files, in bytes"),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who uploaded it: key:ID, or anyone"),
        sa.Column(
            "model_version_id",
            sa.Integer(),
            nullable=True,
            comment="The version that it became; null until its job succeeds",
        ),
        sa.Column(
            "alias",
            sa.String(63),
            nullable=True,
            comment="Alias that was moved to the version; null where none was",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_registrations_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_registrations_model_version_id")
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_registrations")),
        comment="Uploaded models: what a job registers, and the version that it became",
    )
    op.create_table(
        "registration_parts",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the piece"),
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its registration"),
        sa.Column("field", sa.String(16), nullable=False, comment="Field of the form that the file came in"),
        sa.Column("place", sa.Integer(), nullable=False, comment="Place of the piece in its file, from 0"),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="Its bytes"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["registrations.job_id"], name=op.f("fk_registration_parts_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registration_parts")),
        sa.UniqueConstraint("job_id", "field", "place", name=op.f("uq_registration_parts_job_id_field_place")),
        comment="Pieces of uploaded files, until their jobs end",
    )


def downgrade() -> None:
    """Take the change back; jobs that registered a model are forgotten, and their versions stay."""
    op.drop_table("registration_parts")
    op.drop_table("registrations")
    op.execute("DELETE FROM jobs WHERE model_version_id IS NULL")
    _change_jobs(nullable=False)


def _change_jobs(*, nullable: bool) -> None:
    old, new = (0, 1) if nullable else (1, 0)
    if op.get_bind().dialect.name == "sqlite":
        _edit_sqlite(nullable=nullable)
        return
    op.alter_column(
        "jobs",
        "kind",
        existing_type=sa.String(16),
        existing_nullable=False,
        comment=_KINDS[new],
        existing_comment=_KINDS[old],
    )
    op.alter_column(
        "jobs",
        "model_version_id",
        existing_type=sa.Integer(),
        nullable=nullable,
        comment=_VERSIONS[new],
        existing_comment=_VERSIONS[old],
    )


def _edit_sqlite(*, nullable: bool) -> None:
    """Change NOT NULL in the text of the table, as https://sqlite.org/lang_altertable.html says of such changes.

    A copy of the table in its place would take its rows' children along, and as long as there are jobs.
    """
    bind = op.get_bind()
    before, after = f"{_COLUMN} NOT NULL", _COLUMN
    if not nullable:
        before, after = f"{_COLUMN},", f"{_COLUMN} NOT NULL,"
    version = bind.exec_driver_sql("PRAGMA schema_version").scalar_one()
    text = bind.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'jobs'").scalar_one()
    if text.count(before) != 1:
        raise RuntimeError(f"the table jobs has no column {before!r}")
    bind.exec_driver_sql("PRAGMA writable_schema = ON")
    bind.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'jobs'", (before, after)
    )
    bind.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    bind.exec_driver_sql("PRAGMA writable_schema = OFF")
