"""the sparkline of a run lies in its row"""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('run', schema=None) as batch_op:
        empty = '{"steps": [], "values": []}'
        batch_op.add_column(sa.Column('spark', sa.JSON(), nullable=False, server_default=empty))
