"""The official files: which there are, where they lie, how long they are and what they hash to."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from calipers.errors import BadInput, nearest

__all__ = ["OFFICIAL", "OfficialFile", "OfficialSet", "home"]

CHUNK = 1 << 20


def home() -> Path | None:
    """The folder of the official files: ``$CALIPERS_DATA``, or None where it is not set. Read here and nowhere else.

    Example:
        >>> isinstance(home(), Path | None)
        True
    """
    value = os.environ.get("CALIPERS_DATA")
    return Path(value).expanduser() if value else None


@dataclass(frozen=True)
class OfficialFile:
    """One official file. Size and checksum are of its content: mirrors compress a ``.gz`` again, the content stays.

    Arguments:
        name: the file name.
        size: bytes of content, after gunzip for an IDX ``.gz``.
        sha256: of the content.
        record: bytes per example where a shorter file, holding the first examples only, may be loaded; else 0.

    Example:
        >>> OFFICIAL["mnist"].test[1].size
        10008
    """

    name: str
    size: int
    sha256: str
    record: int = 0

    def read(self, path: Path, dataset: str) -> bytes:
        """The content of ``path``, if it is as long as it should be; its checksum is not looked at.

        Raises:
            BadInput: the file of that data set is missing, cannot be read, or is too long or too short.
        """
        try:
            with self._open(path) as source:
                content = source.read(self.size + 1)
            trouble = None if self._first(len(content)) else self._misfit(len(content))
        except FileNotFoundError:
            trouble = "no such file"
        except (OSError, EOFError, zlib.error) as error:
            trouble = str(error)
        if trouble:
            expected, hint = f"{self.size} bytes of content in {path}", f"run 'calipers data fetch {dataset}'"
            raise BadInput(f"data set {dataset}", expected=expected, got=trouble, hint=hint)
        return content

    def complaint(self, path: Path) -> str | None:
        """What is wrong with the content of ``path``; None if it is the official content, byte for byte."""
        hashed, length = hashlib.sha256(), 0
        try:
            for chunk in self._chunks(path):
                hashed.update(chunk)
                length += len(chunk)
        except FileNotFoundError:
            return "no such file"
        except (OSError, EOFError, zlib.error) as error:
            return str(error)
        if length != self.size:
            return f"expected {self.size} bytes of content, got {self._misfit(length)}"
        if hashed.hexdigest() != self.sha256:
            return f"expected content of sha256 {self.sha256}, got {hashed.hexdigest()}"
        return None

    def _first(self, length: int) -> int:
        """How many examples a file of that length may be loaded with; 0 for a length that is wrong."""
        if length == self.size or (self.record and length < self.size and length % self.record == 0):
            return length // (self.record or 1)
        return 0

    def _misfit(self, length: int) -> str:
        if length > self.size:
            return f"more than {self.size}"
        some = f" (the first {self._first(length)} examples; they can be loaded)" if self._first(length) else ""
        return f"{length}{some}"

    def _open(self, path: Path) -> IO[bytes]:
        packed = self.name.endswith(".gz") and not self.name.endswith(".tar.gz")
        return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")

    def _chunks(self, path: Path) -> Iterator[bytes]:
        # One byte more than there should be is enough to see that a file is too long, however far it inflates.
        left = self.size + 1
        with self._open(path) as source:
            while left and (chunk := source.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class OfficialSet:
    r"""A published data set: its files, where they are had, and what they show.

    Arguments:
        name: what it is asked for as.
        folder: the folder of its files under ``$CALIPERS_DATA``.
        url: where its files (or its archive) are downloaded from.
        shape: of one example.
        class_names: the ten classes in the order of the labels.
        train, test: the files of each split.
        archive: the one download that holds all files, if they are not had one by one.

    Example:
        >>> OFFICIAL["cifar10"].shape, OFFICIAL["cifar10"].test[0].name
        ((3, 32, 32), 'test_batch.bin')
    """

    name: str
    folder: str
    url: str
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    train: tuple[OfficialFile, ...]
    test: tuple[OfficialFile, ...]
    archive: OfficialFile | None = None

    @classmethod
    def named(cls, name: str) -> OfficialSet:
        """The official data set of that name.

        Raises:
            BadInput: there is none.

        Example:
            >>> OfficialSet.named("fashion-mnist").class_names[9]
            'Ankle boot'
        """
        if name not in OFFICIAL:
            hint = "it is embedded in scikit-learn: nothing to fetch" if name == "digits" else nearest(name, OFFICIAL)
            raise BadInput("data set", expected="one with official files", got=repr(name), hint=hint)
        return OFFICIAL[name]

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """All its files, of both splits."""
        return self.train + self.test

    def place(self, root: Path | None) -> Path:
        """The folder of its files: under ``root``, or under ``$CALIPERS_DATA`` where that is None.

        Raises:
            BadInput: neither is given.
        """
        root = root or home()
        if root is None:
            example = f"$CALIPERS_DATA/{self.folder}/{self.test[0].name}"
            hint = f"set CALIPERS_DATA to a folder and run 'calipers data fetch {self.name}'"
            raise BadInput("CALIPERS_DATA", expected=f"a folder that holds {example}", got="nothing set", hint=hint)
        return root / self.folder


def _idx(prefix: str, images: str, labels: str, examples: int) -> tuple[OfficialFile, OfficialFile]:
    return (
        OfficialFile(f"{prefix}-images-idx3-ubyte.gz", 16 + 784 * examples, images),
        OfficialFile(f"{prefix}-labels-idx1-ubyte.gz", 8 + examples, labels),
    )


def _bin(name: str, sha256: str, record: int = 0) -> OfficialFile:
    return OfficialFile(f"{name}.bin", 10_000 * 3073, sha256, record)


_CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_THINGS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"

_SETS = (
    OfficialSet(
        name="mnist",
        folder="mnist",
        url="https://ossci-datasets.s3.amazonaws.com/mnist",
        shape=(1, 28, 28),
        class_names=tuple("0123456789"),
        train=_idx(
            "train",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            60_000,
        ),
        test=_idx(
            "t10k",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            10_000,
        ),
    ),
    OfficialSet(
        name="fashion-mnist",
        folder="fashion-mnist",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        shape=(1, 28, 28),
        class_names=tuple(_CLOTHES.split(",")),
        train=_idx(
            "train",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            60_000,
        ),
        test=_idx(
            "t10k",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            10_000,
        ),
    ),
    OfficialSet(
        name="cifar10",
        folder="cifar-10-batches-bin",
        url="https://www.cs.toronto.edu/~kriz",
        shape=(3, 32, 32),
        class_names=tuple(_THINGS.split(",")),
        train=(
            _bin("data_batch_1", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
            _bin("data_batch_2", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
            _bin("data_batch_3", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
            _bin("data_batch_4", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
            _bin("data_batch_5", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
        ),
        test=(_bin("test_batch", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", record=3073),),
        archive=OfficialFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
)

OFFICIAL: dict[str, OfficialSet] = {known.name: known for known in _SETS}
