"""when a worker took its last message, and what ended an attempt"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('worker', schema=None) as batch_op:
        batch_op.add_column(sa.Column('consumed_at', sa.Float(), nullable=True))
    with op.batch_alter_table('attempt', schema=None) as batch_op:
        batch_op.add_column(
            sa.Column('reason_code', sqlmodel.sql.sqltypes.AutoString(length=64), nullable=False, server_default='')
        )
