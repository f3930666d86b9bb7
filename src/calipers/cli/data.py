"""``calipers data``: list, fetch and verify the data sets."""

from __future__ import annotations

import json as jsonlib

from cyclopts import App

from calipers.cli.terminal import bytes_progress, say, say_json
from calipers.cli.wording import Flag

__all__ = ["data_app"]

data_app = App(name="data", help="List, fetch and verify the data sets.")


@data_app.command(name="list")
def data_list(*, json: Flag = False) -> int:
    """Say which data sets there are, and which of them are on this machine.

    For example:

        calipers data list

    Parameters
    ----------
    json
        Print a JSON object: name to state.
    """
    from calipers import data

    found = data.available()
    if json:
        say_json(jsonlib.dumps(found))
        return 0
    for name, state in found.items():
        say(f"{name:15} {state}")
    home = data.home()
    say(f"$CALIPERS_DATA: {home if home else 'not set'}")
    return 0


@data_app.command
def fetch(name: str, /, *, quiet: Flag = False) -> int:
    """Download the official files of a data set into $CALIPERS_DATA, resuming where it stopped.

    For example:

        CALIPERS_DATA=~/data calipers data fetch mnist

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar10.
    quiet
        Say nothing but errors.
    """
    from calipers import data

    with bytes_progress(quiet) as tell:
        files = data.fetch(name, progress=tell)
    if not quiet:
        for file in files:
            say(str(file))
        if not files:
            say(f"{name} is complete")
    return 0


@data_app.command
def verify(name: str, /) -> int:
    """Check the files of a data set against their checksums; exit status 1 if one is missing or wrong.

    For example:

        CALIPERS_DATA=~/data calipers data verify mnist

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar10.
    """
    from calipers import data

    results = data.verify(name)
    for result in results:
        say(f"{'ok ' if result.ok else 'NO '} {result.file}: {result.what}")
    return 0 if all(result.ok for result in results) else 1
