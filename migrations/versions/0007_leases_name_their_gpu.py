"""which GPU a lease is for"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('device_lease', schema=None) as batch_op:
        batch_op.add_column(
            sa.Column('uuid', sqlmodel.sql.sqltypes.AutoString(length=100), nullable=False, server_default='')
        )
