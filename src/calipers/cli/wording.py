"""How options are read, and what cyclopts complains about, in the one wording of all complaints."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, get_args

from cyclopts import CycloptsError, Parameter, Token
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from calipers.errors import BadInput, nearest

__all__ = ["Flag", "Radii", "Radius", "Whole", "complaint", "typed_radii", "typed_radius", "whole_number"]

_FRACTION = "a number or a fraction such as 8/255"
_KINDS: dict[object, str] = {int: "a whole number", float: "a number", bool: "no value", Fraction: _FRACTION}


def complaint(error: CycloptsError) -> BadInput:
    """The same complaint as a sentence: what, expected, got, what to do.

    Example:
        >>> from calipers.cli import app
        >>> try:
        ...     _ = app.parse_args(["report"], exit_on_error=False, print_error=False)
        ... except CycloptsError as error:
        ...     print(complaint(error))
        RUN: expected a value, got none; calipers report --help shows examples
    """
    where = " ".join(error.command_chain or ["command line"])
    match error:
        case UnknownOptionError():
            known = {name for argument in error.argument_collection for name in argument.names if name[:2] == "--"}
            option = error.token.keyword or error.token.value
            return BadInput(where, expected="an option it knows", got=option, hint=nearest(option, known))
        case CoercionError():
            return _wrong_kind(error, where)
        case MissingArgumentError():
            return _missing(error, where)
        case RepeatArgumentError():
            return BadInput(str(error.token.keyword), expected="to be given once", got="another value for it")
        case UnknownCommandError():
            return _unknown_command(error, where)
        case UnusedCliTokensError():
            extra = " ".join(error.unused_tokens or ())
            return BadInput(
                where, expected="nothing more", got=repr(extra), hint=f"calipers {where} --help shows examples"
            )
    return BadInput(str(error))


def whole_number(kind: type, tokens: Sequence[Token]) -> int:
    """An int as it was typed; cyclopts' own would round 2.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


def typed_radii(kind: type, tokens: Sequence[Token]) -> tuple[float, ...]:
    """The radii of --eps: numbers and fractions, repeated or with commas between them."""
    from calipers.threats import radii

    found: list[float] = []
    for token in tokens:
        try:
            found += radii(token.value)
        except BadInput:
            raise CoercionError(token=token, target_type=Fraction) from None
    return tuple(found)


def typed_radius(kind: type, tokens: Sequence[Token]) -> float:
    """One radius: a number or a fraction."""
    found = typed_radii(kind, tokens)
    if len(found) != 1:
        raise CoercionError(token=tokens[0], target_type=Fraction)
    return found[0]


def _name(error: Any, fallback: str) -> str:
    token = getattr(error, "token", None)
    given = getattr(token, "keyword", None) or getattr(error, "keyword", None)
    return given or (error.argument.names[0] if error.argument else fallback)


def _wrong_kind(error: CoercionError, where: str) -> BadInput:
    choices = [str(choice) for choice in get_args(error.target_type)]
    got = error.token.value if error.token else ""
    expected = ", ".join(choices) or _KINDS.get(error.target_type, getattr(error.target_type, "__name__", "a value"))
    hint = nearest(got, choices) if choices else None
    return BadInput(_name(error, where), expected=expected, got=repr(got), hint=hint)


def _missing(error: MissingArgumentError, where: str) -> BadInput:
    count = error.argument.token_count()[0] if error.argument else 1
    got = ", ".join(error.tokens_so_far) or "none"
    expected = "a value" if count == 1 else f"{count} values"
    return BadInput(_name(error, where), expected=expected, got=got, hint=f"calipers {where} --help shows examples")


def _unknown_command(error: UnknownCommandError, where: str) -> BadInput:
    word = (error.unused_tokens or [""])[0]
    known = [name for name in (error.app or ()) if not name.startswith("-")]
    return BadInput(where, expected="a command it knows", got=repr(word), hint=nearest(word, known))


# The types of most options: radii as papers write them; a whole number as it was typed; a switch without --no-….
Radius = Annotated[float, Parameter(converter=typed_radius)]
Radii = Annotated[tuple[float, ...], Parameter(converter=typed_radii, negative=(), show_default=False)]
Whole = Annotated[int, Parameter(converter=whole_number)]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
