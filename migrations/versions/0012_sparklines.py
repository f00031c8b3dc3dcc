"""the sparkline of a run lies in its row"""

import math
import struct
from typing import Any

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
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    run = sa.table('run', sa.column('id'), sa.column('coders', sa.JSON), sa.column('spark', sa.JSON))
    for run_id, coders in connection.execute(sa.select(run.c.id, run.c.coders)).all():
        values = _values(connection, run_id, f'fvu/{coders[0]}') if coders else {}
        if values:
            connection.execute(run.update().where(run.c.id == run_id).values(spark=_line(values)))


def _values(connection: sa.Connection, run_id: str, key: str) -> dict[int, float | None]:
    """The value of every step, in order, that of the latest attempt; None where it is not finite."""
    point = sa.table('metric_point', *map(sa.column, ('run_id', 'key', 'step', 'attempt', 'seq', 'value')))
    columns = (point.c.step, point.c.attempt, point.c.seq, point.c.value)
    found = [tuple(row) for row in connection.execute(sa.select(*columns).where(*_of(point, run_id, key)))]
    chunk = sa.table('metric_chunk', *map(sa.column, ('run_id', 'key', 'attempt', 'level', 'data')))
    sealed = sa.select(chunk.c.attempt, chunk.c.data).where(*_of(chunk, run_id, key), chunk.c.level == 0)
    for attempt, data in connection.execute(sealed):
        n = len(data) // 32
        numbers = struct.unpack(f'<{2 * n}q{2 * n}d', data)
        found += [(numbers[n + i], attempt, numbers[i], numbers[3 * n + i]) for i in range(n)]
    found.sort(key=lambda one: one[:3])
    return {step: value if value is not None and math.isfinite(value) else None for step, _, _, value in found}


def _of(table: sa.TableClause, run_id: str, key: str) -> tuple[Any, ...]:
    return table.c.run_id == run_id, table.c.key == key


def _line(values: dict[int, float | None]) -> dict[str, list[Any]]:
    """The last value of each of at most 48 buckets of 2^n steps."""
    steps, width = list(values), 1
    while steps[-1] // width - steps[0] // width >= 48:
        width *= 2
    last = {step // width: step for step in steps}
    return {'steps': list(last.values()), 'values': [values[step] for step in last.values()]}
