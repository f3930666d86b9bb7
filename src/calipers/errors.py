"""The one wording of every complaint: what, where, expected, got, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["BadInput", "nearest"]


class BadInput(ValueError):
    """Something the caller handed over cannot be used; the message is one sentence that says why.

    Arguments:
        what: what is wrong and where, e.g. ``"labels of digits.npz"``.
        expected: what would have been accepted.
        got: what was found instead.
        hint: what to do about it.

    Example:
        >>> raise BadInput("eps", expected="a number > 0", got=-0.1)
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: eps: expected a number > 0, got -0.1
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, hint: str | None = None) -> None:
        parts = [f"expected {expected}"] if expected is not None else []
        parts += [f"got {got}"] if got is not None else []
        sentence = what + (": " + ", ".join(parts) if parts else "")
        super().__init__(" ".join((sentence + (f"; {hint}" if hint else "")).split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to ``name``.

    Example:
        >>> nearest("mnits", ["mnist", "digits"])
        "did you mean 'mnist'? known: digits, mnist"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    listing = f"known: {', '.join(names)}"
    return f"did you mean {close[0]!r}? {listing}" if close else listing
