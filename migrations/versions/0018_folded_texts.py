"""texts that searches compare, in which capital and small letters are alike"""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = '0018'
down_revision = '0017'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('run', sa.Column('folded_name', sa.Text(), server_default='', nullable=False))
    op.add_column('run', sa.Column('folded_notes', sa.Text(), server_default='', nullable=False))
    _fold_runs()
    _fold_values()


def _fold_runs() -> None:
    names = ('id', 'name', 'notes', 'folded_name', 'folded_notes')
    run = sa.table('run', *map(sa.column, names))
    rows = op.get_bind().execute(sa.select(run.c.id, run.c.name, run.c.notes)).all()
    changed = [{'of': row.id, 'folded_name': _folded(row.name), 'folded_notes': _folded(row.notes)} for row in rows]
    if changed:
        op.get_bind().execute(run.update().where(run.c.id == sa.bindparam('of')), changed)


def _fold_values() -> None:
    value = sa.table('run_value', *map(sa.column, ('run_id', 'key', 'text')))
    rows = op.get_bind().execute(sa.select(value).where(value.c.text.is_not(None))).all()
    changed = [
        {'of': row.run_id, 'under': row.key, 'text': text}
        for row in rows
        if (text := _folded(row.text)[:300]) != row.text
    ]
    if changed:
        mine = (value.c.run_id == sa.bindparam('of')) & (value.c.key == sa.bindparam('under'))
        op.get_bind().execute(value.update().where(mine), changed)


def _folded(text: str) -> str:
    return unicodedata.normalize('NFC', text.casefold())
