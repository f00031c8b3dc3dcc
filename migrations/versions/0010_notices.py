"""channels and deliveries of notices, watch rules"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

String = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.create_table(
        'channel',
        sa.Column('id', String(length=26), nullable=False),
        sa.Column('kind', String(length=16), nullable=False),
        sa.Column('target', String(length=1000), nullable=False),
        sa.Column('events', sa.JSON(), nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_channel')),
    )
    op.create_table(
        'delivery',
        sa.Column('channel_id', String(length=26), nullable=False),
        sa.Column('event_id', sa.Integer(), nullable=False),
        sa.Column('state', String(length=16), nullable=False),
        sa.Column('tries', sa.Integer(), nullable=False),
        sa.Column('not_before', sa.Float(), nullable=False),
        sa.Column('message', sa.Text(), server_default='', nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.Column('sent_at', sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(['channel_id'], ['channel.id'], name=op.f('fk_delivery_channel_id')),
        sa.PrimaryKeyConstraint('channel_id', 'event_id', name=op.f('pk_delivery')),
    )
    with op.batch_alter_table('delivery', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_delivery_state'), ['state'], unique=False)
    op.create_table(
        'watch_rule',
        sa.Column('id', String(length=26), nullable=False),
        sa.Column('metric', String(length=64), nullable=False),
        sa.Column('above', sa.Boolean(), nullable=False),
        sa.Column('value', sa.Float(), nullable=False),
        sa.Column('from_tokens', sa.BigInteger(), nullable=False),
        sa.Column('action', String(length=16), nullable=False),
        sa.Column('runs', String(length=200), nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_watch_rule')),
    )
    op.create_table(
        'watch_hit',
        sa.Column('rule_id', String(length=26), nullable=False),
        sa.Column('run_id', String(length=26), nullable=False),
        sa.Column('step', sa.Integer(), nullable=False),
        sa.Column('value', sa.Float(), nullable=False),
        sa.Column('ts', sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(['rule_id'], ['watch_rule.id'], name=op.f('fk_watch_hit_rule_id')),
        sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_watch_hit_run_id')),
        sa.PrimaryKeyConstraint('rule_id', 'run_id', name=op.f('pk_watch_hit')),
    )
