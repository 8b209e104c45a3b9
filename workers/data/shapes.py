"""Which columns hold what of a row, told from the column names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spice_rows.shape import FURTHER_ROLES, MAIN_ROLES, PROMPTS_OF_PAIRS, Shape, ShapeName
from workers.data.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_ALL_MAIN = frozenset().union(*(needed | allowed for needed, allowed in MAIN_ROLES.values()))

# In order: the first whose needed columns are all there wins.
_KNOWN: tuple[tuple[ShapeName, dict[str, str]], ...] = (
    (ShapeName.PREFERENCE, {"chosen": "chosen", "rejected": "rejected"}),
    *((ShapeName.MESSAGES, {"messages": name}) for name in ("messages", "conversations", "conversation")),
    *(
        (ShapeName.ALPACA, {"instruction": "instruction", "input": given, "output": output})
        for given, output in (("input", "output"), ("input", "response"), ("context", "response"))
    ),
    *(
        (ShapeName.PROMPT_RESPONSE, {"prompt": prompt, "response": response})
        for prompt, response in (
            ("prompt", "response"),
            ("prompt", "completion"),
            ("question", "answer"),
            ("query", "response"),
            ("query", "answer"),
            ("instruction", "output"),
            ("instruction", "response"),
            ("input", "output"),
            ("question", "response"),
            ("problem", "solution"),
            ("prompt", "output"),
        )
    ),
    (ShapeName.TEXT, {"text": "text"}),
)


def recognise(columns: Sequence[str], mapping: Mapping[str, str] | None = None) -> Shape:
    """Tell a dataset's shape from its column names.

    Args:
        columns: The dataset's columns. Names are compared without regard to case.
        mapping: Role to column, given by the client: those of one shape, those of `FURTHER_ROLES`, or both. It
            overrides what would be recognised; its names are exact.

    Raises:
        DatasetError: ``unknown_role`` or ``unknown_column`` for a mapping that does not fit,
            ``unrecognised_shape`` without one.
    """
    mapping = dict(mapping or {})
    if "completion" in mapping:
        mapping.setdefault("response", mapping.pop("completion"))
    for role, column in mapping.items():
        if role not in _ALL_MAIN and role not in FURTHER_ROLES:
            raise _unknown_role(mapping)
        if column not in columns:
            raise DatasetError(
                "unknown_column",
                f"the dataset has no column {column!r}, which is to hold the {role}; it has {_listed(columns)}: name "
                "one of these in dataset.columns",
            )
    further = {role: column for role, column in mapping.items() if role in FURTHER_ROLES}
    main = {role: column for role, column in mapping.items() if role not in FURTHER_ROLES}
    name, found = _named(main) if main else _recognised(columns, frozenset(further.values()))
    by_lower_case = {column.lower(): column for column in reversed(columns)}
    taken = {*found.values(), *further.values()}
    if name is ShapeName.PREFERENCE and found.keys().isdisjoint({"prompt", "input"}):
        found |= _prompt_of_pairs({lower: column for lower, column in by_lower_case.items() if column not in taken})
        taken |= set(found.values())
    for role, usual in FURTHER_ROLES.items():
        known = next((by_lower_case[column] for column in usual if column in by_lower_case), None)
        if role not in further and known is not None and known not in taken and _suits(role, name):
            further[role] = known
    return Shape(name, {**found, **further}, frozenset(mapping))


def _suits(role: str, shape: ShapeName) -> bool:
    """Whether a column of a usual name is taken for a role: not where the name may mean something else."""
    if shape is ShapeName.TEXT:
        return False
    if role == "history":
        return shape in (ShapeName.ALPACA, ShapeName.PROMPT_RESPONSE)
    return role != "label" or shape is not ShapeName.PREFERENCE


def _recognised(columns: Sequence[str], taken: frozenset[str]) -> tuple[ShapeName, dict[str, str]]:
    by_lower_case = {column.lower(): column for column in reversed(columns) if column not in taken}
    for name, wanted in _KNOWN:
        if all(column in by_lower_case for column in wanted.values()):
            return name, {role: by_lower_case[column] for role, column in wanted.items()}
    raise DatasetError(
        "unrecognised_shape",
        f"no prompt and response among the columns {_listed(columns)}: name them with "
        '"columns": {"prompt": "...", "response": "..."}, {"messages": "..."} or {"text": "..."}',
    )


def _prompt_of_pairs(by_lower_case: Mapping[str, str]) -> dict[str, str]:
    """The columns that hold the prompt of a pair, by role: none, one, or an instruction and its input."""
    prompt = next((name for name in ("prompt", *PROMPTS_OF_PAIRS) if name in by_lower_case), None)
    if prompt is None:
        return {}
    found = {"prompt": by_lower_case[prompt]}
    if prompt == "instruction" and "input" in by_lower_case:
        found["input"] = by_lower_case["input"]
    return found


def _named(mapping: Mapping[str, str]) -> tuple[ShapeName, dict[str, str]]:
    roles = frozenset(mapping)
    fitting = [name for name, (needed, optional) in MAIN_ROLES.items() if needed <= roles <= needed | optional]
    if not fitting:
        raise _unknown_role(mapping)
    return fitting[0], dict(mapping)


def _unknown_role(mapping: Mapping[str, str]) -> DatasetError:
    return DatasetError(
        "unknown_role",
        f'"columns" maps {_listed(sorted(mapping))}: it should map prompt and response, or messages, or '
        "instruction and output (and input), or chosen and rejected (and prompt), or text; and perhaps "
        f"{', '.join(FURTHER_ROLES)}",
    )


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "(none)"
