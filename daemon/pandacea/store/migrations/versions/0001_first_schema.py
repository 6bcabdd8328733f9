"""The first schema. Frozen: databases were written with it; change it by a new migration."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "asset_version",
        sa.Column("commitment", sa.String(length=64), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("asset_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("commitment_key", sa.LargeBinary(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("table_schema", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("commitment"),
        sa.UniqueConstraint("product_id", "asset_id", "digest"),
    )
    op.create_table(
        "job",
        sa.Column("computation_id", sa.String(length=66), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("contract", sa.String(length=42), nullable=False),
        sa.Column("lease_id", sa.String(length=66), nullable=False),
        sa.Column("spender", sa.String(length=42), nullable=False),
        sa.Column("request_hash", sa.String(length=66), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("product_version", sa.String(length=66), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("uploads", sa.JSON(), nullable=False),
        sa.Column("policy_decision", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=16), nullable=False),
        sa.Column("live_output", sa.String(length=16), nullable=False),
        sa.Column("show_messages", sa.Boolean(), nullable=False),
        sa.Column("max_computations", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("queue_deadline", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("charge", sa.String(length=16), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("token_sha256", sa.String(length=64), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("failure", sa.String(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=True),
        sa.Column("result_hash", sa.String(length=66), nullable=True),
        sa.Column("receipt", sa.JSON(), nullable=True),
        sa.Column("removed_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("computation_id"),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("job_by_idempotency_key", ["spender", "idempotency_key"], unique=False)
        batch_op.create_index("job_by_lease", ["chain_id", "contract", "lease_id"], unique=False)
        batch_op.create_index("job_by_state", ["state", "created_at"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("outbox_waiting", ["channel", "done_at", "next_at"], unique=False)

    op.create_table(
        "product",
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("product_hash", sa.String(length=66), nullable=False),
        sa.Column("current_version", sa.String(length=66), nullable=True),
        sa.Column("withdrawn_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("product_id"),
        sa.UniqueConstraint("product_hash"),
    )
    op.create_table(
        "request_nonce",
        sa.Column("keyid", sa.String(length=80), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("keyid", "nonce"),
    )
    with op.batch_alter_table("request_nonce", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_request_nonce_expires"), ["expires"], unique=False)

    op.create_table(
        "job_artifact",
        sa.Column("computation_id", sa.String(length=66), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("file", sa.String(length=16), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["computation_id"],
            ["job.computation_id"],
        ),
        sa.PrimaryKeyConstraint("computation_id", "name"),
    )
    op.create_table(
        "product_version",
        sa.Column("version", sa.String(length=66), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("signature", sa.String(length=132), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["product.product_id"],
        ),
        sa.PrimaryKeyConstraint("version"),
    )
    with op.batch_alter_table("product_version", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_product_version_product_id"), ["product_id"], unique=False)
