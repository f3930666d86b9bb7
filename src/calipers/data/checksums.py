"""Are the official files all there, and are they the official ones?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calipers.data.loading import plugins
from calipers.data.official import OFFICIAL, OfficialSet
from calipers.data.official import home as home_in_use

__all__ = ["State", "Verified", "available", "verify"]

# "incomplete": some of its files are here.
State = Literal["embedded", "present", "incomplete", "missing", "plugin"]


@dataclass(frozen=True)
class Verified:
    """The verdict on one official file.

    Arguments:
        file: where it lies, or should.
        ok: whether its content is the official one, byte for byte.
        what: what was found, in words.

    Example:
        >>> Verified(Path("mnist/t10k-labels-idx1-ubyte.gz"), False, "no such file").ok
        False
    """

    file: Path
    ok: bool
    what: str


def verify(name: str, home: Path | None = None) -> list[Verified]:
    """Compare every official file of a data set, content against checksum.

    Arguments:
        name: ``mnist``, ``fashion-mnist`` or ``cifar10``.
        home: the folder of the official files, instead of ``$CALIPERS_DATA``.

    Raises:
        BadInput: a name without official files, or no folder to look in.

    Example:
        >>> [found.what for found in verify("cifar10", Path("nowhere"))][-1]
        'no such file'
    """
    known = OfficialSet.named(name)
    place = known.place(home)
    complaints = [(place / file.name, file.complaint(place / file.name)) for file in known.files]
    return [Verified(path, wrong is None, wrong or "the sha256 of its content is right") for path, wrong in complaints]


def available(home: Path | None = None) -> dict[str, State]:
    """Every data set that has a name, and whether it is here; files are looked for, not read.

    Arguments:
        home: the folder of the official files, instead of ``$CALIPERS_DATA``.

    Example:
        >>> available(Path("nowhere"))["digits"], available(Path("nowhere"))["mnist"]
        ('embedded', 'missing')
    """
    root = home or home_in_use()
    states: dict[str, State] = {"digits": "embedded"}
    for name, known in OFFICIAL.items():
        here = [root is not None and (root / known.folder / file.name).is_file() for file in known.files]
        states[name] = "present" if all(here) else "incomplete" if any(here) else "missing"
    return states | dict.fromkeys(plugins(), "plugin")
