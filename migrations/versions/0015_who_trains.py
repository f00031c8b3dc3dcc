"""which processes train, in which pid namespace, and why a node could not start"""

import sqlalchemy as sa
from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('worker', sa.Column('pid_namespace', sa.String(length=64), server_default='', nullable=False))
    op.add_column('attempt_node', sa.Column('pid_namespace', sa.String(length=64), server_default='', nullable=False))
    op.add_column('attempt_node', sa.Column('processes', sa.JSON(), server_default='[]', nullable=False))
    op.add_column('attempt_node', sa.Column('reason_code', sa.String(length=64), server_default='', nullable=False))
    op.add_column('attempt_node', sa.Column('message', sa.Text(), server_default='', nullable=False))
    op.add_column('device_lease', sa.Column('processes', sa.JSON(), server_default='[]', nullable=False))
