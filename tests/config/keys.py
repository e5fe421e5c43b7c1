"""Every key of the configuration, read off the models: what documents must mention."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bridge.config import Config, Section

REQUIRED = object()


def keys(model: type[Section] = Config, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, default or REQUIRED); keys inside lists without an index."""
    for name, field in model.model_fields.items():
        key = f"{path}{name}"
        section = inner(field)
        if section is None or field.default is None or field.default == ():
            yield key, REQUIRED if field.default is PydanticUndefined else field.default
        if section is not None:
            default = field.default
            for below, value in keys(section, f"{key}."):
                attribute = below.removeprefix(f"{key}.")
                if isinstance(default, Section) and "." not in attribute:
                    value = getattr(default, attribute)  # a default of the whole section wins
                yield below, value


def inner(field: FieldInfo) -> type[Section] | None:
    """The section model inside `X`, `X | None` or `tuple[X, ...]`."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None
