"""the chain: what the follower holds, leases, why approvals count, transactions sent."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chain_block",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("parent", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "number"),
    )
    op.create_table(
        "chain_event",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("block_hash", sa.String(length=66), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("lease_id", sa.String(length=66), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "block_hash", "log_index", "part"),
    )
    op.create_index("chain_event_block", "chain_event", ["deployment", "block_number"], unique=False)
    op.create_index("chain_event_lease", "chain_event", ["deployment", "lease_id"], unique=False)
    op.create_table(
        "deployment",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("contract", sa.String(length=42), nullable=False),
        sa.Column("earner", sa.String(length=42), nullable=False),
        sa.Column("interface", sa.String(length=8), nullable=False),
        sa.Column("deploy_block", sa.BigInteger(), nullable=False),
        sa.Column("base_number", sa.BigInteger(), nullable=False),
        sa.Column("base_hash", sa.String(length=66), nullable=False),
        sa.Column("base_parent", sa.String(length=66), nullable=False),
        sa.Column("base_timestamp", sa.BigInteger(), nullable=False),
        sa.Column("safe_number", sa.BigInteger(), nullable=False),
        sa.Column("finalized_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deployment_place", "deployment", ["chain_id", "contract"], unique=True)
    op.create_table(
        "lease",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(length=66), nullable=False),
        sa.Column("spender", sa.String(length=42), nullable=False),
        sa.Column("earner", sa.String(length=42), nullable=False),
        sa.Column("price", sa.String(length=78), nullable=False),
        sa.Column("created_block", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("data_product_id", sa.String(length=66), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("max_computations", sa.BigInteger(), nullable=False),
        sa.Column("committed", sa.LargeBinary(), nullable=False),
        sa.Column("approved_block", sa.BigInteger(), nullable=True),
        sa.Column("executed_block", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_block", sa.BigInteger(), nullable=True),
        sa.Column("finalized_block", sa.BigInteger(), nullable=True),
        sa.Column("disputed_block", sa.BigInteger(), nullable=True),
        sa.Column("resolved_block", sa.BigInteger(), nullable=True),
        sa.Column("resolved_for_spender", sa.Boolean(), nullable=True),
        sa.Column("approved_tx", sa.String(length=66), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "lease_id"),
    )
    op.create_index(
        "lease_waiting",
        "lease",
        ["deployment", "seen_at"],
        unique=False,
        sqlite_where=sa.text("approved_block IS NULL"),
        postgresql_where=sa.text("approved_block IS NULL"),
    )
    op.create_table(
        "lease_proof",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(length=66), nullable=False),
        sa.Column("trust", sa.String(length=16), nullable=False),
        sa.Column("terms", sa.String(length=66), nullable=False),
        sa.Column("approved_tx", sa.String(length=66), nullable=True),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "lease_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sent_transaction",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sender", sa.String(length=42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(length=160), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("max_cost", sa.String(length=78), nullable=False),
        sa.Column("max_fee", sa.String(length=78), nullable=False),
        sa.Column("priority_fee", sa.String(length=78), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("mined_block", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("chain_id", "sender", "nonce", "attempt"),
    )
    op.create_index(op.f("ix_sent_transaction_purpose"), "sent_transaction", ["purpose"], unique=False)
    op.create_table(
        "settled_range",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "first"),
    )
