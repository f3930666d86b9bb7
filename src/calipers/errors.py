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
    """A hint that lists the known words, and names the one that ``name`` may be a slip of, whatever its case.

    Example:
        >>> nearest("Mnits", ["mnist", "digits"])
        "did you mean 'mnist'? known: digits, mnist"
        >>> nearest("fast", ["auto", "quick"])
        'known: auto, quick'
    """
    folded = {word.lower(): word for word in sorted(known)}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    listing = f"known: {', '.join(folded.values())}"
    return f"did you mean {folded[close[0]]!r}? {listing}" if close else listing
