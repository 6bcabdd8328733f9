"""Held results, uploads, scripts handed in for approval, live output."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "code_submission",
        sa.Column("code_id", sa.String(length=66), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("uploads", sa.JSON(), nullable=False),
        sa.Column("params_schema", sa.JSON(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("submitter", sa.String(length=42), nullable=False),
        sa.Column("known", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("code_id"),
    )
    with op.batch_alter_table("code_submission", schema=None) as batch_op:
        batch_op.create_index("code_by_script", ["product_id", "code_sha256"], unique=False)
        batch_op.create_index("code_by_state", ["state", "created_at"], unique=False)

    op.create_table(
        "upload",
        sa.Column("spender", sa.String(length=42), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("spender", "sha256"),
    )
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_expires_at"), ["expires_at"], unique=False)

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("live_at", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("cancel_asked", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.alter_column(
            "policy_decision", existing_type=sa.VARCHAR(length=64), type_=sa.String(length=128), existing_nullable=False
        )
        batch_op.drop_index(batch_op.f("job_by_idempotency_key"))
        batch_op.create_index("job_by_idempotency_key", ["spender", "lease_id", "idempotency_key"], unique=False)
        batch_op.create_index("job_by_spender", ["spender", "state"], unique=False)
