"""The columns of a table, of whatever kind: read, and checked."""

from numbers import Real

import numpy as np

from mlutils.episodes import describe


def column_of(rows, name):
    """A column as an array of one axis."""
    columns = names_of(rows)
    if name not in columns:
        indexed = name in (getattr(getattr(rows, "index", None), "names", None) or ())
        hint = " It is an index: rows.reset_index() makes columns of it." if indexed else ""
        raise ValueError(f"There is no column {name!r}; there are {columns}.{hint}")
    column = rows[name]
    if isinstance(column, np.ma.MaskedArray):
        column = np.where(np.ma.getmaskarray(column), None, column.data.astype(object))
    values = np.asarray(column)
    if values.ndim != 1:
        raise ValueError(f"Column {name!r} must have one value per row; got shape {values.shape}.")
    return values


def names_of(rows):
    """The names of a table's columns."""
    if isinstance(rows, dict):
        return list(rows)
    if isinstance(rows, np.ndarray):
        names = rows.dtype.names
    else:
        names = getattr(rows, "columns", None)
    if names is None:
        raise TypeError(
            "rows must have named columns, as a DataFrame or a dict of arrays has them; got "
            f"{describe(rows)}."
        )
    return list(names)


def absent(values):
    """Which values of a column are missing: NaN, NaT, None, or what pandas writes for them."""
    if values.dtype.kind in "fc":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype == object:
        return np.array([is_absent(value) for value in values], bool)
    return np.zeros(len(values), bool)


def is_absent(value):
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def about_missing(found, task, lacking):
    """What to say of the first column that lacks values."""
    column = int(np.flatnonzero(lacking.any(axis=1))[0])
    first = int(np.flatnonzero(lacking[column])[0])
    name = list(found)[column]
    where = "" if name == task else f" of task {str(found[task][first])!r}"
    others = int(lacking.any(axis=1).sum()) - 1
    more = f" {others} other column{'s' if others > 1 else ''} lack values too." if others else ""
    return (
        f"Column {name!r} has no value in {lacking[column].sum()} of {lacking.shape[1]} rows, the "
        f"first in row {first}{where}.{more} Leave such rows out with missing='drop', or fill them "
        "before (with a value that no held-out task had a say in)."
    )


ADVICE = {
    "text": "one-hot them, one column of 0 and 1 for each value, as pandas.get_dummies does",
    "text that reads as numbers": "convert the column, as .astype(float) does",
    "times": "make numbers of them, such as days since the first, the year or the weekday",
}
ADVICE_FOR_TARGETS = ADVICE | {
    "text": "name the classes, as in classes=('no', 'yes')",
    "True and False": "name the classes, as in classes=(False, True)",
}


def numbers(name, values, places, advice=ADVICE):
    """A column as float64; a ValueError that says what to do with what is no number.

    ``places`` says which rows of the table these are.
    """
    kind = kind_of(values)
    if kind in advice:
        alike = (i for i in range(len(values)) if kind_of(values[i : i + 1]) == kind)
        first = next(alike, 0)
        raise ValueError(
            f"Column {name!r} holds {kind}, such as {str(values[first])!r} in row {places[first]}, "
            f"where numbers are needed: {advice[kind]}."
        )
    try:
        values = values.astype(np.float64, casting="same_kind" if kind == "complex" else "unsafe")
    except (TypeError, ValueError):
        raise ValueError(
            f"Column {name!r} must hold numbers, got {type(values[0]).__name__}, such as "
            f"{values[0]!r}."
        ) from None
    if not np.isfinite(values).all():
        raise ValueError(f"Column {name!r} has {np.isinf(values).sum()} infinite values.")
    return values


def reads_as_numbers(values):
    try:
        values.astype(np.float64)
    except (TypeError, ValueError):
        return False
    return True


def kind_of(values):
    """What a column holds, in words; "numbers" if it is nothing else that is known."""
    kind = values.dtype.kind
    types = {type(value) for value in values} if kind == "O" else set()
    if kind in "US" or any(issubclass(t, (str, bytes)) for t in types):
        return "text that reads as numbers" if reads_as_numbers(values) else "text"
    times = ("isoformat", "total_seconds", "strftime")
    if kind in "mM" or any(hasattr(t, method) for t in types for method in times):
        return "times"
    if kind == "b" or types & {bool, np.bool_}:
        return "True and False"
    return "complex" if kind == "c" else "numbers"


def labels(name, values, classes):
    """The classes as a tuple, and each row's label, int32."""
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise TypeError(f"classes must be the target's values, got {classes!r}.")
    classes = tuple(plain(c) for c in classes)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"classes must be two different values or more, got {classes!r}.")
    known = {value: label for label, value in enumerate(classes)}
    found = [plain(value) for value in values]
    strange = [value for value in found if value not in known]
    if strange:
        raise ValueError(
            f"Column {name!r} must hold one of the classes {classes!r}; {len(strange)} of "
            f"{len(found)} rows hold others, the first {strange[0]!r}."
        )
    return classes, np.array([known[value] for value in found], np.int32)


def plain(value):
    """A NumPy scalar as the Python value that it equals."""
    return value.item() if isinstance(value, np.generic) else value


def named(task, values):
    """The tasks' names, sorted, and each row's task as a position in them."""
    if values.dtype.kind in "mM" or all(isinstance(value, str) for value in values):
        values = values.astype(str)
    whole = values.dtype.kind in "iub" or all(is_whole(value) for value in values)
    if values.dtype.kind not in "US" and not whole:
        raise ValueError(
            f"Column {task!r} must name the tasks, by strings or whole numbers; got "
            f"{next(plain(v) for v in values if not is_whole(v))!r}."
        )
    values = values.astype(np.int64) if values.dtype.kind in ("f", "O") else values
    names, owners = np.unique(values, return_inverse=True)
    return tuple(names.tolist()), owners


def is_whole(value):
    """Whether a value is an integer, if written as a float too."""
    return isinstance(value, Real) and float(value).is_integer()
