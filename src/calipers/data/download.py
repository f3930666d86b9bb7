"""Official files from where they are published: resumed where they broke off, checked, put in place at once."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from calipers.data.official import OfficialFile, OfficialSet
from calipers.errors import BadInput

__all__ = ["Progress", "fetch"]

# progress(file name, bytes so far, bytes in all or None where the server does not say)
Progress = Callable[[str, int, int | None], None]

SECONDS = 30.0


def fetch(
    name: str, home: Path | None = None, *, base_url: str | None = None, progress: Progress | None = None
) -> list[Path]:
    """Download the official files of a data set that are missing or wrong.

    A file grows as ``FILE.part`` and gets its name once its checksum is right. A part left by an earlier try is gone on
    with, if the server can. Files that are right already are not touched.

    Arguments:
        name: ``mnist``, ``fashion-mnist`` or ``cifar10``.
        home: the folder of the official files, instead of ``$CALIPERS_DATA``; made if need be.
        base_url: where the files lie, instead of the publisher's address.
        progress: called with the file's name, the bytes so far, and the bytes in all (or None).

    Returns:
        The files it put in place.

    Raises:
        BadInput: a name without official files; no folder; a refused or broken connection or a full disk (the part
            stays); a wrong checksum (the part goes).

    Example:
        >>> fetch("mnits")
        Traceback (most recent call last):
            ...
        calipers.errors.BadInput: data set: expected one with official files, got 'mnits'; did you mean 'mnist'? ...
    """
    known = OfficialSet.named(name)
    place = known.place(home)
    wanted = [file for file in known.files if file.complaint(place / file.name)]
    url = (base_url or known.url).rstrip("/")
    try:
        if wanted:
            place.mkdir(parents=True, exist_ok=True)
        if wanted and known.archive:
            archive = place.parent / known.archive.name
            if known.archive.complaint(archive):
                _download(f"{url}/{archive.name}", archive, known.archive, progress)
            _unpack(archive, known, wanted, place)
            archive.unlink()
        else:
            for file in wanted:
                _download(f"{url}/{file.name}", place / file.name, file, progress)
    except OSError as error:
        where, hint = f"files of {name} in {place}", "mend this and run it again: what was loaded so far is kept"
        raise BadInput(where, expected="to write them", got=error.strerror or error, hint=hint) from error
    return [place / file.name for file in wanted]


def _download(url: str, target: Path, file: OfficialFile, progress: Progress | None) -> None:
    import httpx

    part = target.with_name(f"{target.name}.part")
    # A part may be whole already: the last run was stopped between the last byte and the new name.
    if file.complaint(part):
        try:
            _receive(url, part, progress)
        except httpx.HTTPStatusError as error:
            got = f"HTTP status {error.response.status_code}"
            raise BadInput(url, expected="the file", got=got, hint="try another address") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            got = f"{error} after {_length(part)} bytes"
            hint = "run it again: it goes on from there"
            raise BadInput(f"download of {url}", expected="the whole file", got=got, hint=hint) from error
    wrong = file.complaint(part)
    if wrong:
        part.unlink()
        raise BadInput(f"download of {url} ({wrong}; it was removed)", hint="run it again, or try another address")
    part.replace(target)


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing to ``part``, or start it again where the server will not go on."""
    import httpx

    have = _length(part)
    # A server that compresses on the way would make offsets and lengths meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=SECONDS) as answer:
        goes_on = answer.headers.get("content-range", "").startswith(f"bytes {have}-")
        useless = answer.status_code == 416 or (answer.status_code == 206 and not goes_on)
        if not (have and useless):
            answer.raise_for_status()
            done = have if answer.status_code == 206 else 0
            length = answer.headers.get("content-length")
            total = done + int(length) if length else None
            with part.open("ab" if done else "wb") as out:
                # As it comes: chunks of a set size would be lost with the connection, half filled.
                for chunk in answer.iter_raw():
                    out.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(part.name.removesuffix(".part"), done, total)
            return
    part.unlink()
    _receive(url, part, progress)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unpack(archive: Path, known: OfficialSet, wanted: list[OfficialFile], place: Path) -> None:
    """Put the wanted files of the archive in place, each at once and only if it is right."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{known.folder}.") as scratch:
        names = {f"{known.folder}/{file.name}" for file in wanted}
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, [member for member in tar if member.name in names], filter="data")
        for file in wanted:
            unpacked = Path(scratch) / known.folder / file.name
            wrong = file.complaint(unpacked)
            if wrong:
                raise BadInput(f"{file.name} in {archive}: {wrong}", hint="delete the archive and run it again")
            unpacked.replace(place / file.name)
