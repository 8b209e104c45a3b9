"""Insert rows in one statement whose text is the same for any number of them.

The unit of work makes a statement as long as there are rows, with a parameter for each value, which takes the API more
time than all else of a submission. Here the rows are one parameter, a JSON document.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from sqlalchemy import Text, bindparam, column, func, insert, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB

from app.core.db import scoping
from app.core.db.tables import Dataset, Job, Preview

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Insert, Table
    from sqlalchemy.orm import Session

New = Dataset | Job | Preview


def insert_new(session: Session, found: Iterable[object]) -> None:
    """Insert rows in the caller's transaction, as rows of the session's project.

    What the schema sets by default is theirs afterwards. They stay in no session: to be told of, not to be changed.

    Args:
        session: In whose transaction.
        found: Rows of one table. Whatever else there is, such as a row that is in a session, is passed over.
    """
    rows = [row for row in found if isinstance(row, New) and row not in session]
    if not rows:
        return
    for row in rows:
        scoping.own(session, row)
    set_by_any = set[str]().union(*map(vars, rows))
    kind = type(rows[0])
    statement, names = _statement(
        kind, tuple(name for name, _ in kind.__mapper__.columns.items() if name in set_by_any)
    )
    document = [{column: getattr(row, name) for name, column in names} for row in rows]
    inserted = session.connection().execute(statement, {"rows": json.dumps(document, default=str)}).mappings()
    of_id = {row.id: row for row in rows}
    for one in inserted:
        for name, value in one.items():
            setattr(of_id[one["id"]], name, value)


@lru_cache
def _statement(kind: type[New], attributes: tuple[str, ...]) -> tuple[Insert, list[tuple[str, str]]]:
    """The INSERT of rows that have these attributes set, and each attribute with its column."""
    table = cast("Table", kind.__table__)
    columns = [kind.__mapper__.columns[name] for name in attributes]
    names = [one.name for one in columns]
    sent = (
        func.jsonb_to_recordset(sql_cast(bindparam("rows", type_=Text), JSONB))
        .table_valued(*(column(one.name, one.type) for one in columns))
        .render_derived(with_types=True)
    )
    by_default = [
        one.label(name)
        for name, one in kind.__mapper__.columns.items()
        if name not in attributes and (one.default is not None or one.server_default is not None)
    ]
    statement = insert(table).from_select(names, select(sent)).returning(table.c.id, *by_default)
    return statement, list(zip(attributes, names, strict=True))
