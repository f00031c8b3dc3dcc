"""what runs were predicted to need, and what they needed"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'prediction',
        sa.Column('run_id', sqlmodel.sql.sqltypes.AutoString(length=26), nullable=False),
        sa.Column('created_at', sa.Float(), nullable=False),
        sa.Column('device', sqlmodel.sql.sqltypes.AutoString(length=300), nullable=False),
        sa.Column('family', sqlmodel.sql.sqltypes.AutoString(length=64), nullable=False),
        sa.Column('counted', sa.JSON(), nullable=False),
        sa.Column('expected', sa.JSON(), nullable=False),
        sa.Column('actual_device', sqlmodel.sql.sqltypes.AutoString(length=300), nullable=False),
        sa.Column('actual', sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_prediction_run_id')),
        sa.PrimaryKeyConstraint('run_id', name=op.f('pk_prediction')),
    )
    with op.batch_alter_table('prediction', schema=None) as batch_op:
        batch_op.create_index('ix_prediction_device_created_at', ['device', 'created_at'], unique=False)
