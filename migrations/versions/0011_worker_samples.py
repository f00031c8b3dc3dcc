"""what workers measure of their machines"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('worker_sample',
    sa.Column('worker_id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
    sa.Column('ts', sa.Float(), nullable=False),
    sa.Column('keep_until', sa.Float(), nullable=False),
    sa.Column('cpu_frac', sa.Float(), nullable=False),
    sa.Column('memory_used_bytes', sa.BigInteger(), nullable=False),
    sa.Column('memory_bytes', sa.BigInteger(), nullable=False),
    sa.Column('disk_free_bytes', sa.BigInteger(), nullable=False),
    sa.Column('disk_bytes', sa.BigInteger(), nullable=False),
    sa.Column('devices', sa.JSON(), nullable=False),
    sa.ForeignKeyConstraint(['worker_id'], ['worker.id'], name=op.f('fk_worker_sample_worker_id')),
    sa.PrimaryKeyConstraint('worker_id', 'ts', name=op.f('pk_worker_sample'))
    )
    with op.batch_alter_table('worker_sample', schema=None) as batch_op:
        batch_op.create_index('ix_worker_sample_keep_until', ['keep_until'], unique=False)
