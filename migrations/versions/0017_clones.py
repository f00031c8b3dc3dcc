"""the clones of a run are found without reading all runs"""

from alembic import op

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_run_cloned_from', 'run', ['cloned_from'])
