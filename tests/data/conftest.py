"""Tiny stand-ins for the official files, with their own sizes and checksums, and the real ones where they are."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calipers.data import OFFICIAL, OfficialFile, home


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def entry(name: str, content: bytes, record: int = 0) -> OfficialFile:
    return OfficialFile(name, len(content), hashlib.sha256(content).hexdigest(), record)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    # A proxy, or data that happens to lie here, must not change what a test sees.
    for name in ("CALIPERS_DATA", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny_mnist(monkeypatch):
    """``mnist`` with 3 train and 2 test images: file name → bytes, as a server would hand them out."""
    rng = np.random.default_rng(0)
    files, table = {}, {}
    for split, prefix, count in (("train", "train", 3), ("test", "t10k", 2)):
        images = idx(rng.integers(0, 256, (count, 28, 28)))
        labels = idx(np.arange(count))
        names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        table[split] = (entry(names[0], images), entry(names[1], labels))
        files |= {names[0]: gzip.compress(images), names[1]: gzip.compress(labels)}
    monkeypatch.setitem(OFFICIAL, "mnist", replace(OFFICIAL["mnist"], **table))
    return files


@pytest.fixture
def tiny_cifar(monkeypatch):
    """``cifar10`` with 2 images a batch: file name → bytes, and the archive."""
    rng = np.random.default_rng(1)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files, packed = {}, io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for i, name in enumerate(names):
            rows = rng.integers(0, 256, (2, 3073), dtype=np.uint8)
            rows[:, 0] = (i, i + 1)
            files[name] = rows.tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
        stray = tarfile.TarInfo("../stray.txt")
        tar.addfile(stray, io.BytesIO(b""))
    archive = "cifar-10-binary.tar.gz"
    files[archive] = packed.getvalue()
    table = {
        "train": tuple(entry(name, files[name]) for name in names[:5]),
        "test": (entry(names[5], files[names[5]], record=3073),),
        "archive": entry(archive, files[archive]),
    }
    monkeypatch.setitem(OFFICIAL, "cifar10", replace(OFFICIAL["cifar10"], **table))
    return files


@pytest.fixture
def lay(tmp_path):
    """Write files into the folder they belong to; gives the home."""

    def write(folder: str, files: dict[str, bytes]) -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
        return tmp_path

    return write


HOME = home()


@pytest.fixture
def real():
    """The home of the real files of one data set, or a skip."""

    def find(name: str) -> Path:
        if HOME is None:
            pytest.skip("CALIPERS_DATA is not set")
        missing = [
            file.name for file in OFFICIAL[name].files if not (HOME / OFFICIAL[name].folder / file.name).is_file()
        ]
        if missing:
            pytest.skip(f"{OFFICIAL[name].folder}/{missing[0]} is not under $CALIPERS_DATA")
        return HOME

    return find
