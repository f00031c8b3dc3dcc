"""metric points lie in the order in which charts read them"""

import sqlalchemy as sa
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None

COLUMNS = 'run_id, key, step, attempt, seq, ts, value, kind'


def upgrade() -> None:
    op.rename_table('metric_point', 'old_metric_point')
    if op.get_bind().dialect.name == 'postgresql':  # where names of constraints must differ across tables
        op.execute('ALTER TABLE old_metric_point RENAME CONSTRAINT pk_metric_point TO pk_old_metric_point')
    op.create_table(
        'metric_point',
        sa.Column('run_id', sa.String(length=26), nullable=False),
        sa.Column('key', sa.String(length=400), nullable=False),
        sa.Column('step', sa.Integer(), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('seq', sa.Integer(), nullable=False),
        sa.Column('ts', sa.Float(), nullable=False),
        sa.Column('value', sa.Float(), nullable=True),
        sa.Column('kind', sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_metric_point_run_id')),
        sa.PrimaryKeyConstraint('run_id', 'key', 'step', 'attempt', 'seq', name=op.f('pk_metric_point')),
        sqlite_with_rowid=False,
    )
    op.execute(f'INSERT INTO metric_point ({COLUMNS}) SELECT {COLUMNS} FROM old_metric_point')
    op.drop_table('old_metric_point')
    op.create_index('ix_metric_point_run_id_attempt_seq', 'metric_point', ['run_id', 'attempt', 'seq'])
