"""Chooses options of a field by their labels or ids."""

from __future__ import annotations

from pdsync.writeback import typed_values
from pdsync.writeback.messages import did_you_mean
from pdsync.writeback.record_names import WHOLE
from pdsync.writeback.typed_values import InvalidValue, Option

_LEVELS = ("1", "3", "5", "7")  # of visibility
_MAX_LISTED = 8  # options that a message lists


def choose(options: list[Option], value: object, *, many: bool = False, ids_only: bool = False) -> object:
    """The ids of the options that `value` names.

    Args:
        options: of the field; empty where they are not known: then only ids are accepted.
        value: a label, an id, or several of them.
        many: the field may have several options.
        ids_only: integers are ids and never labels, as in what the API itself returns.

    Returns:
        An id; with `many` a list of them, or None for an empty list.

    Raises:
        InvalidValue: an option is unknown or ambiguous.
    """
    if not options:
        return _ids_alone(value, many=many)
    ids = list(value) if isinstance(value, list | tuple) else [value]
    existing = {each.value for each in options}
    if ids_only and (many or len(ids) == 1) and all(_is_int(each) and each in existing for each in ids):
        return (ids or None) if many else ids[0]
    single = value[0] if isinstance(value, list | tuple) and len(value) == 1 and not many else value
    try:
        if not many:
            return typed_values.find_option(single, options)
        found = typed_values.find_options(value, options)
    except InvalidValue as error:
        raise error if str(error) else _unknown_option(value, options) from None
    if not found and isinstance(value, str) and value.strip() != "[]":
        raise _unknown_option(value, options)
    return found or None  # the API refuses an empty set; null empties the field


def visibility_levels(listed: list[Option]) -> list[Option]:
    """The options of `visible_to`: those that the company names, and the API's own numbers."""
    return listed + [Option(id, id) for id in _LEVELS if id not in {each.id for each in listed}]


def _ids_alone(value: object, *, many: bool) -> object:
    given = [value] if not isinstance(value, list | tuple) else list(value)
    if isinstance(value, str) and many:
        given = [each.strip() for each in value.strip("[] ").split(",")]
    if not all(_is_int(each) or WHOLE.fullmatch(str(each)) for each in given) or not (many or len(given) == 1):
        raise InvalidValue("", why="should be the id of an option; labels are known after a sync")
    return ([int(str(each)) for each in given] or None) if many else int(str(given[0]))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unknown_option(value: object, options: list[Option]) -> InvalidValue:
    guess = did_you_mean(str(value), [each.label for each in options])
    if not guess:
        listed = ", ".join(each.label or each.id for each in options[:_MAX_LISTED])
        guess = f" There are {listed}{' …' if len(options) > _MAX_LISTED else ''}."
    return InvalidValue("", why=f"that is none of its options.{guess}")
