"""The types that values of a configuration may have, by the annotations of the schema."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal, Union

_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def has_type(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return value in typing.get_args(annotation)
    if origin is list:
        (element,) = typing.get_args(annotation)
        return isinstance(value, list) and all(has_type(one, element) for one in value)
    if origin is dict:
        element = typing.get_args(annotation)[1]
        return isinstance(value, dict) and all(has_type(one, element) for one in value.values())
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def type_words(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return ", ".join(str(name) for name in typing.get_args(annotation))
    if origin is list:
        return f"a list of {type_words(typing.get_args(annotation)[0]).split(' ', 1)[1]}s"
    if origin is dict:
        return "a mapping of names to numbers"
    return _TYPE_WORDS[annotation]
