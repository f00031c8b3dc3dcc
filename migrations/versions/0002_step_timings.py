"""step timings"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('step_timing',
    sa.Column('run_id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('step', sa.Integer(), nullable=False),
    sa.Column('ts', sa.Float(), nullable=False),
    sa.Column('total_ms', sa.Float(), nullable=False),
    sa.Column('parts_ms', sa.JSON(), nullable=False),
    sa.Column('floor_ms', sa.JSON(none_as_null=True), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_step_timing_run_id')),
    sa.PrimaryKeyConstraint('run_id', 'attempt', 'seq', name=op.f('pk_step_timing'))
    )
    with op.batch_alter_table('step_timing', schema=None) as batch_op:
        batch_op.create_index('ix_step_timing_run_id_step', ['run_id', 'step'], unique=False)
