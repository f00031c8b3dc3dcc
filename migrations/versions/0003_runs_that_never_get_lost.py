"""runs that never get lost"""

import json

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('attempt_node',
    sa.Column('run_id', sa.String(length=26), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('node', sa.Integer(), nullable=False),
    sa.Column('worker_id', sa.String(length=26), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('boot_id', sa.String(length=36), nullable=False),
    sa.Column('devices', sa.JSON(), nullable=False),
    sa.Column('supervisor_pid', sa.Integer(), nullable=False),
    sa.Column('supervisor_started', sa.Float(), nullable=False),
    sa.Column('heartbeat', sa.Integer(), nullable=False),
    sa.Column('ended_at', sa.Float(), nullable=True),
    sa.Column('exit_code', sa.Integer(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name='fk_attempt_node_run_id'),
    sa.PrimaryKeyConstraint('run_id', 'attempt', 'node', name='pk_attempt_node')
    )
    op.create_index('ix_attempt_node_worker_id', 'attempt_node', ['worker_id'])
    op.create_table('device_lease',
    sa.Column('worker_id', sa.String(length=26), nullable=False),
    sa.Column('kind', sa.String(length=8), nullable=False),
    sa.Column('index', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.String(length=26), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('node', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), server_default='', nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name='fk_device_lease_run_id'),
    sa.PrimaryKeyConstraint('worker_id', 'kind', 'index', name='pk_device_lease')
    )
    op.create_index('ix_device_lease_run_id_attempt', 'device_lease', ['run_id', 'attempt'])
    queue_state = op.create_table('queue_state',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('paused', sa.Boolean(), nullable=False),
    sa.Column('reason', sa.Text(), server_default='', nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('id', name='pk_queue_state')
    )
    op.bulk_insert(queue_state, [{'id': 1, 'paused': False, 'reason': '', 'since': 0.0}])
    _add_columns()
    _move_what_attempts_hold()
    for table, names in (
        ('run', ('worker_id', 'heartbeat')),
        ('attempt', ('worker_id', 'host', 'devices', 'supervisor_pid', 'supervisor_started')),
    ):
        for name in names:
            op.drop_column(table, name)


def _add_columns() -> None:
    """Column by column: SQLite would make a table anew, which the foreign keys that point at it forbid."""
    added = {
        'run': (
            sa.Column('num_nodes', sa.Integer(), server_default='1', nullable=False),
            sa.Column('min_memory_bytes', sa.BigInteger(), nullable=True),
            sa.Column('labels', sa.JSON(), server_default='[]', nullable=False),
            sa.Column('rank', sa.Float(), server_default='0', nullable=False),
            sa.Column('waits_for', sa.Text(), server_default='', nullable=False),
            sa.Column('not_before', sa.Float(), nullable=True),
            sa.Column('attempt', sa.Integer(), server_default='0', nullable=False),
            sa.Column('losses', sa.Integer(), server_default='0', nullable=False),
            sa.Column('retry_of', sa.String(length=26), nullable=True),
            sa.Column('cloned_from', sa.String(length=26), nullable=True),
        ),
        'run_event': (
            sa.Column('from_state', sa.String(length=16), server_default='', nullable=False),
            sa.Column('reason_code', sa.String(length=64), server_default='', nullable=False),
        ),
        'worker': (
            sa.Column('boot_id', sa.String(length=36), server_default='', nullable=False),
            sa.Column('protocol', sa.Integer(), server_default='0', nullable=False),
            sa.Column('state', sa.String(length=16), server_default='active', nullable=False),
            sa.Column('labels', sa.JSON(), server_default='[]', nullable=False),
        ),
    }
    for table, columns in added.items():
        for column in columns:
            op.add_column(table, column)
    op.create_index('uq_run_retry_of', 'run', ['retry_of'], unique=True)


def _move_what_attempts_hold() -> None:
    """Attempts had one host; what was counted as failures were lost workers; the fence was the attempt's number."""
    op.execute(
        "INSERT INTO attempt_node (run_id, attempt, node, worker_id, host, boot_id, devices, supervisor_pid, "
        "supervisor_started, heartbeat, ended_at) SELECT run_id, attempt, 0, worker_id, host, '', devices, "
        "supervisor_pid, supervisor_started, 0, ended_at FROM attempt"
    )
    op.execute("UPDATE run SET rank = queued_at, attempt = fence, losses = failures, failures = 0")
    op.execute("UPDATE run SET phase = '' WHERE state = 'queued'")
    connection = op.get_bind()
    held = connection.execute(
        sa.text(
            "SELECT n.worker_id, n.devices, n.run_id, n.attempt FROM attempt_node n JOIN run r "
            "ON r.id = n.run_id AND r.fence = n.attempt WHERE r.state IN ('starting', 'running', 'stopping')"
        )
    ).all()
    insert = sa.text(
        "INSERT INTO device_lease (worker_id, kind, \"index\", run_id, attempt, node, state, since) "
        "VALUES (:worker_id, :kind, :number, :run_id, :attempt, 0, 'held', 0)"
    )
    for row in held:
        devices = json.loads(row.devices) if isinstance(row.devices, str) else row.devices
        taken = [('gpu', number) for number in devices] or [('cpu', 0)]
        for kind, number in taken:
            values = {'worker_id': row.worker_id, 'run_id': row.run_id, 'attempt': row.attempt}
            connection.execute(insert, values | {'kind': kind, 'number': number})
