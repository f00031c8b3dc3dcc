"""runs that can be searched, tagged, annotated and archived, and views of their list"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('run', sa.Column('tags', sa.JSON(), server_default='[]', nullable=False))
    op.add_column('run', sa.Column('notes', sa.Text(), server_default='', nullable=False))
    op.add_column('run', sa.Column('archived_at', sa.Float(), nullable=True))
    op.create_index('ix_run_archived_at_created_at_id', 'run', ['archived_at', 'created_at', 'id'])
    op.create_table('saved_view',
    sa.Column('id', sa.String(length=26), nullable=False),
    sa.Column('name', sa.String(length=60), nullable=False),
    sa.Column('query', sa.String(length=2000), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('id', name='pk_saved_view'),
    sa.UniqueConstraint('name', name='uq_saved_view_name')
    )
    run_value = op.create_table('run_value',
    sa.Column('run_id', sa.String(length=26), nullable=False),
    sa.Column('key', sa.String(length=100), nullable=False),
    sa.Column('num', sa.Float(), nullable=True),
    sa.Column('text', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name='fk_run_value_run_id'),
    sa.PrimaryKeyConstraint('run_id', 'key', name='pk_run_value')
    )
    _fill(run_value)
    op.create_index('ix_run_value_key_num_run_id', 'run_value', ['key', 'num', 'run_id'])
    op.create_index('ix_run_value_key_text_run_id', 'run_value', ['key', 'text', 'run_id'])


def _fill(run_value: sa.Table) -> None:
    connection = op.get_bind()
    runs = sa.table('run', sa.column('id'), sa.column('config', sa.JSON), sa.column('latest', sa.JSON))
    for run_id, config, latest in connection.execute(sa.select(runs)).all():
        rows = [*_config_rows(run_id, config), *_metric_rows(run_id, latest)]
        if rows:
            connection.execute(run_value.insert(), rows)


def _config_rows(run_id: str, config: dict[str, Any], prefix: str = '') -> list[dict[str, Any]]:
    rows = []
    for name, value in config.items():
        if isinstance(value, dict):
            rows += _config_rows(run_id, value, f'{prefix}{name}.')
        elif value not in (None, '', []):
            rows.append({'run_id': run_id, 'key': f'{prefix}{name}'} | _cell(value))
    return rows


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {'num': None, 'text': 'true' if value else 'false'}
    if isinstance(value, int | float):
        return {'num': float(value), 'text': None}
    text = ' '.join(map(str, value)) if isinstance(value, list) else str(value)
    return {'num': None, 'text': text[:300]}


def _metric_rows(run_id: str, latest: dict[str, Any]) -> list[dict[str, Any]]:
    values: dict[str, list[float]] = {}
    for key, value in latest.items():
        values.setdefault(key.partition('/')[0], []).append(float(value))
    means = {name: sum(each) / len(each) for name, each in values.items()}
    return [
        {'run_id': run_id, 'key': f'metric.{name}', 'num': mean, 'text': None}
        for name, mean in means.items()
        if abs(mean) < float('inf')
    ]
