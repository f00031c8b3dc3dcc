"""series at rest: chunks of points, at several resolutions"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'metric_chunk',
        sa.Column('run_id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
        sa.Column('key', sqlmodel.sql.sqltypes.AutoString(length=400), nullable=False),
        sa.Column('level', sa.Integer(), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('first_seq', sa.Integer(), nullable=False),
        sa.Column('last_seq', sa.Integer(), nullable=False),
        sa.Column('first_step', sa.Integer(), nullable=False),
        sa.Column('last_step', sa.Integer(), nullable=False),
        sa.Column('below', sa.Integer(), nullable=False),
        sa.Column('num_points', sa.Integer(), nullable=False),
        sa.Column('data', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_metric_chunk_run_id')),
        sa.PrimaryKeyConstraint('run_id', 'key', 'level', 'attempt', 'first_seq', name=op.f('pk_metric_chunk')),
    )
    with op.batch_alter_table('metric_chunk', schema=None) as batch_op:
        batch_op.create_index(
            'ix_metric_chunk_run_id_attempt_last_seq', ['run_id', 'attempt', 'last_seq'], unique=False
        )
