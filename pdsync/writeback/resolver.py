"""Turns the names that people use into the codes and ids that the API takes.

    "Deal size", cf_deal_size        the code of a custom field, 40 hexadecimal digits
    "Enterprise"                     the id of an option
    "Anna Berg", anna@example.com    the id of a user; likewise stages, pipelines, organizations …
    org, owner                       org_id, owner_id
    @acme                            the record that the queued mutation named acme adds

Names come from the warehouse of the last sync; before the first one only codes and ids can be used. A name that fits
nothing, or several things, is refused with a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.errors import ConfigError
from pdsync.writeback.amounts import currencies_in
from pdsync.writeback.company_names import FIELD_CODE, CompanyNames
from pdsync.writeback.custom_values import as_v1_parameters, contradict, refuse_incomplete, set_custom_field
from pdsync.writeback.display import display_entries, display_object
from pdsync.writeback.headings import resolve_heading
from pdsync.writeback.messages import NOTHING, did_you_mean
from pdsync.writeback.param_values import ParameterResolver, find_parameter, find_part, resolve_part
from pdsync.writeback.record_names import STREAM_OF_TYPE, referenced_stream
from pdsync.writeback.shapes import find_stream, row_key, shape
from pdsync.writeback.typed_values import NumberStyle

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from pdsync.model import Mutation, Operation, Stream

_ANY_STYLE = NumberStyle()
_MAX_LISTED = 8  # currencies that a message lists


class NameResolver:
    """Resolves and shows the names of one company.

    Args:
        warehouse: a connection; None where nothing was synced yet.
    """

    def __init__(self, warehouse: duckdb.DuckDBPyConnection | None) -> None:
        self.names = CompanyNames(warehouse)
        self.pending: dict[str, str] = {}  # mutation id → how to show the record that it will add
        self._headings: dict[tuple[str, str], str] = {}

    def resolve(
        self, operation: Operation, given: Mapping[str, object], styles: Mapping[str, NumberStyle] | None = None
    ) -> dict[str, Any]:
        """The parameters of `operation` that `given` means, custom fields where its version of the API takes them.

        Args:
            operation: the change.
            given: values by the names that people use.
            styles: by name, how numbers in the text are written.

        Raises:
            ConfigError: a name fits nothing or several things. Nothing was queued.
        """
        stream = find_stream(shape(operation).kind)
        # A body that is a list is given as a whole, as `body`: the keys of its entries are no parameters.
        parameters = {**operation.path_params, **operation.query, **({} if operation.body_list else operation.body)}
        values = ParameterResolver(self.names, operation, given)
        params: dict[str, Any] = {}
        custom: dict[str, Any] = {}
        implied: str | None = None
        for key, value in given.items():
            style = (styles or {}).get(key, _ANY_STYLE)
            if key == "custom_fields" and isinstance(value, dict) and operation.custom_fields:
                custom |= self._custom_object(operation, stream, value)
            elif part := find_part(operation, stream, key, value, parameters):
                typed = resolve_part(operation, key, part[1], value, style)
                params[part[0]] = _merged(operation, params.get(part[0]) or {}, typed, part[0], key)
            elif name := find_parameter(operation, stream, key, parameters):
                if name in params:
                    raise _given_twice(operation, name, key)
                resolved = values.resolve(name, value, style)
                params[name] = resolved.pop(name)
                implied = resolved.get("currency", implied)
            elif operation.body_list and key == "body":
                params[key] = value
            else:
                custom |= set_custom_field(
                    self.names, operation, stream, key, value, custom=custom, params=list(parameters), style=style
                )
        params = _with_currency(operation, params, implied)
        self._refuse_unknown_currency(operation, [params, custom])
        if not custom:
            return params
        if shape(operation).verb == "add":
            refuse_incomplete(operation, self.names.custom_fields(stream), custom)
        if operation.version == "v2":
            return {**params, "custom_fields": custom}
        return params | as_v1_parameters(custom)

    def resolve_heading(self, operation: Operation, heading: str) -> str:
        """The parameter that the heading of a column means: see `headings.resolve_heading`."""
        if (operation.name, heading) not in self._headings:
            self._headings[operation.name, heading] = resolve_heading(self.names, operation, heading)
        return self._headings[operation.name, heading]

    def label(self, operation: Operation, field: str) -> str:
        """The label of a field, as `equality.fields` names it; a built-in field keeps its name.

        v1 has the parts of a value as fields of their own: `<code>_until`.
        """
        name = field.rpartition("/")[2]
        code, part = name[:40], name[41:]
        if not FIELD_CODE.fullmatch(code):
            return field
        fields = self.names.custom_fields(find_stream(shape(operation).kind))
        label = next((each.label for each in fields if each.code == code), code)
        return f"{label} ({part})" if part else label

    def display_value(self, operation: Operation, field: str, value: Any) -> Any:
        """A value as people read it: options by their labels, records by their names with the id in brackets."""
        if isinstance(value, dict):
            if "$ref" in value:
                return self.pending.get(str(value["$ref"]), value)
            value = display_object(value)
        if value is None:
            return None
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            return display_entries(value)
        stream = find_stream(shape(operation).kind)
        code = field.rpartition("/")[2]
        custom = next((each for each in self.names.custom_fields(stream) if each.code == code), None)
        table = STREAM_OF_TYPE.get(custom.type) if custom else referenced_stream(field, stream)
        if table and not isinstance(value, list):
            title = self.names.title(table, value)
            inactive = ", inactive" if table == "users" and self.names.is_inactive(value) else ""
            return f"{title} ({value}{inactive})" if title else value
        options = {each.id: each.label for each in self.names.options(stream, code)}
        if isinstance(value, list):
            return [options.get(str(each), each) for each in value]
        return options.get(str(value), value)

    def currency(self, mutation: Mutation) -> str | None:
        """The currency of the record that a mutation changes, as it was synced; None where it is unknown."""
        stream = find_stream(mutation.kind)
        if stream is None or mutation.target is None or "currency" not in stream.columns:
            return None
        return self.names.currency(stream, row_key(stream, mutation.target))

    def _refuse_unknown_currency(self, operation: Operation, params: object) -> None:
        codes = self.names.currency_codes()
        unknown = [each for each in currencies_in(params) if each not in codes]
        if codes and unknown:
            guess = did_you_mean(unknown[0], codes) or f" There are {', '.join(codes[:_MAX_LISTED])}."
            raise ConfigError(
                f"{operation.name}: the company has no currency {unknown[0]!r}.{guess} {NOTHING}\n"
                "If it was added after the last sync: pdsync sync currencies"
            )

    def _custom_object(
        self, operation: Operation, stream: Stream | None, given: Mapping[str, object]
    ) -> dict[str, Any]:
        """Custom fields that were given together, as the object `custom_fields`."""
        custom: dict[str, Any] = {}
        for key, value in given.items():
            custom |= set_custom_field(
                self.names, operation, stream, key, value, custom=custom, params=[], style=_ANY_STYLE
            )
        return custom


def _merged(
    operation: Operation, earlier: dict[str, Any], parts: dict[str, Any], name: str, key: str
) -> dict[str, Any]:
    """The parts of the parameter `name` that earlier keys have set, with those that `key` sets."""
    if contradict(earlier, parts):
        raise _given_twice(operation, name, key)
    return {**earlier, **parts}


def _given_twice(operation: Operation, name: str, key: str) -> ConfigError:
    return ConfigError(f"{operation.name}: {name} is given twice ({key!r} means it too). {NOTHING}")


def _with_currency(operation: Operation, params: dict[str, Any], implied: str | None) -> dict[str, Any]:
    """The parameters with the currency that an amount names."""
    if implied is None:
        return params
    if params.get("currency", implied) != implied:
        raise ConfigError(
            f"{operation.name}: the amount is in {implied}, and currency is {params['currency']!r}. {NOTHING}"
        )
    return {**params, "currency": implied}
