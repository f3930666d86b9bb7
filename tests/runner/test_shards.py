"""Parts on disk, resume, dead workers, other machines; and files that are either whole or absent."""

import errno
import functools
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

from calipers.errors import BadInput
from calipers.runner import Part, atomic_write, differences, fingerprint, merge, run_shards


def squares(shard: int) -> Part:
    n = np.arange(shard * 3, shard * 3 + 3)
    word = np.array(["", "é", "three" * shard], dtype=object)
    return Part({"n": n, "word": word}, {"square": (n**2)[:, None] / 7}, {"last": shard})


def the_same(one: Part, other: Part) -> None:
    assert list(one.table) == list(other.table)
    assert all(np.array_equal(one.table[name].astype(str), other.table[name].astype(str)) for name in one.table)
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    assert one.notes == other.notes


EXPECTED = merge([squares(shard) for shard in range(4)])


def counted(calls: list[int], shard: int) -> Part:
    calls.append(shard)
    return squares(shard)


def test_in_memory_and_on_disk_are_the_same(tmp_path):
    the_same(merge(run_shards(squares, None, "m", 4)), EXPECTED)
    the_same(merge(run_shards(squares, tmp_path, "m", 4)), EXPECTED)
    names = [f"part-0000{shard}" for shard in range(4)]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == names


def test_only_what_is_missing_is_done_and_all_is_told(tmp_path):
    run_shards(squares, tmp_path, "m", 4)
    (tmp_path / "parts" / "part-00002").unlink()
    calls, told = [], []
    parts = run_shards(
        functools.partial(counted, calls), tmp_path, "m", 4, on_done=lambda shard, part: told.append(shard)
    )
    the_same(merge(parts), EXPECTED)
    assert calls == [2]
    assert sorted(told) == [0, 1, 2, 3]


def truncate(content: bytes) -> bytes:
    return content[:-10]


def flip_payload(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


def flip_checksum(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("damage", [truncate, flip_payload, flip_checksum, lambda _: b"", lambda c: c[:64]])
def test_a_damaged_part_is_done_again(tmp_path, damage, caplog):
    run_shards(squares, tmp_path, "m", 4)
    path = tmp_path / "parts" / "part-00001"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    calls = []
    the_same(merge(run_shards(functools.partial(counted, calls), tmp_path, "m", 4)), EXPECTED)
    assert calls == [1]
    assert "part-00001 is damaged" in caplog.text
    assert path.read_bytes() == sound


def test_every_single_flipped_byte_is_noticed(tmp_path):
    run_shards(squares, tmp_path, "m", 1)
    path = tmp_path / "parts" / "part-00000"
    sound, calls = path.read_bytes(), []
    places = range(0, len(sound), 17)
    for place in places:
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x20]) + sound[place + 1 :])
        run_shards(functools.partial(counted, calls), tmp_path, "m", 1)
    assert len(calls) == len(places)


def test_a_part_of_another_run_or_place_does_not_count(tmp_path):
    run_shards(squares, tmp_path, "m", 4)
    calls = []
    run_shards(functools.partial(counted, calls), tmp_path, "other", 4)
    assert calls == [0, 1, 2, 3]
    parts = tmp_path / "parts"
    (parts / "part-00003").write_bytes((parts / "part-00000").read_bytes())
    run_shards(functools.partial(counted, calls), tmp_path, "other", 4)
    assert calls[4:] == [3]


def test_a_half_written_part_of_a_killed_process_does_not_count(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-00000.tmp99").write_bytes(b"half")
    the_same(merge(run_shards(squares, tmp_path, "m", 4)), EXPECTED)


def slow_first(shard: int) -> Part:
    import time

    time.sleep(0.3 if shard == 0 else 0.0)
    return squares(shard)


def dies_once(mark: Path, shard: int) -> Part:
    if shard == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return squares(shard)


def always_dies(shard: int) -> Part:
    os.kill(os.getpid(), signal.SIGKILL)
    return squares(shard)


def refuses(shard: int) -> Part:
    raise BadInput("shard", expected="another", got=shard)


def test_two_workers_give_the_same_in_the_same_order(tmp_path):
    told = []
    parts = run_shards(slow_first, tmp_path, "m", 4, workers=2, on_done=lambda shard, part: told.append(shard))
    the_same(merge(parts), EXPECTED)
    assert sorted(told) == [0, 1, 2, 3]
    the_same(merge(run_shards(squares, None, "m", 4, workers=2)), EXPECTED)


def test_what_a_killed_worker_held_is_done_again(tmp_path, caplog):
    parts = run_shards(functools.partial(dies_once, tmp_path / "died"), tmp_path / "run", "m", 4, workers=2)
    the_same(merge(parts), EXPECTED)
    assert (tmp_path / "died").exists()
    assert "a worker died" in caplog.text


def test_workers_that_always_die_are_given_up(tmp_path):
    with pytest.raises(BadInput, match=r"2 of the shards: expected workers that live .* --resume goes on"):
        run_shards(always_dies, tmp_path, "m", 2, workers=2)


def test_a_workers_complaint_comes_through(tmp_path):
    with pytest.raises(BadInput, match=r"^shard: expected another, got 0$"):
        run_shards(refuses, tmp_path, "m", 1, workers=2)


def test_work_that_cannot_be_sent(tmp_path):
    with (tmp_path / "open").open("w") as file, pytest.raises(BadInput, match="expected what can be pickled, got"):
        run_shards(functools.partial(counted, file), tmp_path, "m", 1, workers=2)


def test_a_dask_cluster_by_its_scheduler_file(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        warnings.simplefilter("ignore")
        client.write_scheduler_file(str(tmp_path / "scheduler.json"))
        told = []
        parts = run_shards(
            squares,
            tmp_path / "run",
            "m",
            4,
            workers=f"dask:{tmp_path / 'scheduler.json'}",
            on_done=lambda shard, part: told.append(shard),
        )
    the_same(merge(parts), EXPECTED)
    assert sorted(told) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, -1, "2", "ray:x", "dask:nowhere.json"])
def test_workers_that_cannot_be_meant(workers, tmp_path):
    with pytest.raises(BadInput, match=r"workers: expected a whole number|scheduler file nowhere.json"):
        run_shards(squares, tmp_path, "m", 1, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_merge_keeps_the_last_of_equal_notes_and_all_others():
    one, two = Part({"n": np.arange(2)}, {}, {"a": 1, "b": 1}), Part({"n": np.arange(3)}, {}, {"b": 2, "c": 2})
    whole = merge([one, two])
    assert whole.table["n"].tolist() == [0, 1, 0, 1, 2]
    assert whole.notes == {"a": 1, "b": 2, "c": 2}


def test_atomic_write_replaces_whole_files(tmp_path):
    target = tmp_path / "new" / "folder" / "note.txt"
    atomic_write(target, "first")
    atomic_write(target, b"second")
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "expected a disk that takes 5 bytes, got No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "make room and go on with --resume"),
        (OSError(errno.EIO, "Input/output error"), "expected a place that can be written to, got Input/output error"),
    ],
)
def test_a_disk_that_does_not_take_it_leaves_the_old_file(tmp_path, monkeypatch, error, sentence):
    atomic_write(tmp_path / "note.txt", "old")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BadInput) as caught:
        atomic_write(tmp_path / "note.txt", "newer")
    assert sentence in str(caught.value)
    assert str(tmp_path / "note.txt") in str(caught.value)
    assert (tmp_path / "note.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_ctrl_c_while_writing_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "note.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="expected a place that can be written to"):
        atomic_write(tmp_path / "file" / "note.txt", "new")


def test_fingerprint_is_of_the_content_alone():
    assert fingerprint({"a": [1, 2.5], "b": "x"}) == fingerprint({"b": "x", "a": [1, 2.5]})
    known = {fingerprint({"a": a}) for a in (1, 2, "1", [1], None, 0.1, 0.1 + 1e-18, {"b": 1})}
    assert len(known) == 7, "0.1 and 0.1 + 1e-18 are one number, all others differ"
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": float("nan")})


def test_differences_name_what_changed_came_and_went():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 2}) == []
    assert differences({"b": 2, "a": 1, "d": 4}, {"a": 1, "b": 3, "c": 4}) == [
        "b: 2 then, 3 now",
        "c: None then, 4 now",
        "d: 4 then, None now",
    ]
