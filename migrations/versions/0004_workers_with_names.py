"""workers with names, and where the nodes of an attempt meet"""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('worker', sa.Column('name', sa.String(length=100), server_default='', nullable=False))
    op.add_column('worker', sa.Column('cpu_slots', sa.Integer(), server_default='1', nullable=False))
    op.add_column('attempt', sa.Column('rendezvous', sa.String(length=300), server_default='', nullable=False))
    op.execute("UPDATE worker SET name = substr(host, 1, 100)")
    op.create_index('uq_worker_name', 'worker', ['name'], unique=True)
