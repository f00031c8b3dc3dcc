"""presets that people save, and runs that start from a checkpoint of another one"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'preset',
        sa.Column('id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
        sa.Column('name', sqlmodel.sql.sqltypes.AutoString(length=100), nullable=False),
        sa.Column('description', sa.Text(), server_default='', nullable=False),
        sa.Column('config', sa.JSON(), nullable=False),
        sa.Column('launch', sa.JSON(), nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_preset')),
        sa.UniqueConstraint('name', name=op.f('uq_preset_name')),
    )
    op.add_column('run', sa.Column('forked_from', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=True))
    op.add_column('run', sa.Column('forked_step', sa.Integer(), nullable=True))
    op.create_index('ix_run_forked_from', 'run', ['forked_from'], unique=False)
