"""runs that start from a checkpoint of another one"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('run', sa.Column('forked_from', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=True))
    op.add_column('run', sa.Column('forked_step', sa.Integer(), nullable=True))
    op.create_index('ix_run_forked_from', 'run', ['forked_from'], unique=False)
