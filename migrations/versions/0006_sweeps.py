"""sweeps, and which runs belong to one"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'sweep',
        sa.Column('id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
        sa.Column('name', sqlmodel.sql.sqltypes.AutoString(length=200), nullable=False),
        sa.Column('spec', sa.JSON(), nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_sweep')),
    )
    op.add_column('run', sa.Column('sweep_id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=True))
    op.create_index('ix_run_sweep_id', 'run', ['sweep_id'], unique=False)
