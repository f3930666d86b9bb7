"""Every bad input of the command line: status 2, one line with what, where, expected and got, nothing half-written."""

import errno
import os

import numpy as np
import pytest

from calipers.audit import audit

X = np.random.default_rng(0).random((10, 64), dtype=np.float32)


def with_one(value: float) -> np.ndarray:
    x = X.copy()
    x[7, 3] = value
    return x


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--norm", "linff"], ["norm", "expected linf, l2, l1 or l0", "got 'linff'", "did you mean 'linf'"]),
        (["--budget", "quik"], ["budget", "expected quick, standard", "got 'quik'", "did you mean 'quick'"]),
        (["--eps", "-0.1"], ["eps", "expected a finite number > 0", "got -0.1"]),
        (["--eps", "0"], ["eps", "expected a finite number > 0", "got 0.0"]),
        (["--eps", "nan"], ["eps", "expected a finite number > 0", "got nan"]),
        (["--eps", "inf"], ["eps", "expected a finite number > 0", "got inf"]),
        (["--eps", "0.1", "--eps", "-1"], ["eps", "expected a finite number > 0", "got -1"]),
        (["--eps", "much"], ["--eps", "expected a number", "got 'much'"]),
        (["--eps"], ["--eps", "expected a value", "got none"]),
        (["--examples", "361"], ["examples of digits", "expected 1…360", "got 361"]),
        (["--examples", "0"], ["examples of digits", "expected 1…360", "got 0"]),
        (["--examples", "-3"], ["examples of digits", "expected 1…360", "got -3"]),
        (["--examples", "few"], ["--examples", "expected a whole number", "got 'few'"]),
        (["--examples", "2.5"], ["--examples", "expected a whole number", "got '2.5'"]),
        (["--seed", "-1"], ["seed", "expected 0 to 2^64 - 1", "got -1"]),
        (["--seed", str(2**64)], ["seed", "expected 0 to 2^64 - 1", f"got {2**64}"]),
        (["--batch-size", "0"], ["batch size", "expected a whole number of at least 1", "got 0"]),
        (["--workers", "0"], ["workers", "expected a whole number of at least 1", "got 0"]),
        (["--workers", "-2"], ["workers", "expected a whole number of at least 1", "got '-2'"]),
        (["--workers", "two"], ["workers", "or dask:FILE", "got 'two'"]),
        (["--workers", "dask:nowhere.json"], ["scheduler file nowhere.json", "expected", "got no such file"]),
        (["--fail-under", "80", "--eps", "0.1"], ["--fail-under", "expected a fraction from 0 to 1", "got 80"]),
        (["--fail-under", "nan", "--eps", "0.1"], ["--fail-under", "expected a fraction", "got nan"]),
        (["--fail-under", "0.8"], ["--fail-under", "expected an --eps", "got none"]),
        (["--box", "1", "0"], ["input box", "expected lo < hi", "lo=1.0, hi=0.0"]),
        (["--box", "0"], ["--box", "expected 2 values", "got 0"]),
        (["--box", "0", "0.5"], ["input of example 0", "expected values inside [0, 0.5]", "got 0…0.9375"]),
        (["--resume", "--replace"], ["resume and replace", "expected one of the two", "got both"]),
        (["--arch", "digits-mlp"], ["digits-linear"]),
        (["--esp", "0.1"], ["audit", "expected an option", "got --esp", "did you mean '--eps'"]),
        (["--seed", "1", "--seed", "2"], ["--seed", "expected to be given once"]),
        (["more"], ["audit", "expected nothing more", "got 'more'"]),
    ],
)
def test_settings(quick, tmp_path, words, parts):
    said = quick(*words)
    for part in parts:
        assert part in said.complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "data", "parts"),
    [
        (
            "digits-mpl",
            "digits",
            ["expected a built-in name", "got 'digits-mpl'", "did you mean 'digits-mlp'"],
        ),
        ("digits-linear", "digist", ["data", "expected a known name", "got 'digist'", "did you mean 'digits'"]),
        ("none.safetensors", "digits", ["model file none.safetensors", "expected a file", "got nothing there"]),
        ("digits-linear", "none.npz", ["data", "expected the file none.npz", "got no such file"]),
        ("digits-linear", "no/folder", ["data", "got 'no/folder'", "no such file or folder"]),
        ("tests.factories:nothing", "digits", ["tests.factories:nothing", "expected something named 'nothing'"]),
        ("tests.nowhere:x", "digits", ["tests.nowhere:x", "expected an importable module tests.nowhere"]),
        ("tests.factories:random_mlp", "cifar11", ["data", "got 'cifar11'", "did you mean 'cifar10'"]),
    ],
)
def test_names(quick, tmp_path, monkeypatch, model, data, parts):
    said = quick(model=model, data=data)
    for part in parts:
        assert part in said.complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"x": X[:, :60]}, ["(1, 8, 8)", "(60,)"]),
        ({"y": np.arange(10) + 5}, ["expected at least 15 classes", "got 10 logits"]),
        ({"y": np.arange(10) - 1}, ["label of example 0", "got -1"]),
        ({"y": np.arange(10) / 2}, ["y of", "expected integers", "float64"]),
        ({"x": X * 255}, ["expected values inside [0, 1]", "example 0"]),
        ({"x": with_one(np.nan)}, ["example 7", "expected finite numbers", "got NaN or infinity"]),
        ({"x": with_one(-np.inf)}, ["example 7", "expected finite numbers", "got NaN or infinity"]),
        ({"y": np.zeros(10, dtype=int)}, ["expected at least two classes", "got only class 0"]),
        ({"x": X[:0], "y": np.arange(0)}, ["expected at least one example", "got 0 inputs"]),
        ({"y": np.arange(9)}, ["expected", "as many labels as inputs", "got 10 inputs and 9 labels"]),
    ],
)
def test_data(quick, npz, tmp_path, changes, parts):
    file = npz(**changes)
    said = quick("--examples", len(changes.get("x", X)) or 1, data=file)
    for part in [str(file), *parts] if "x" not in changes or changes["x"].shape[1] == 64 else parts:
        assert part in said.complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["fake.safetensors", "fake.skops", "fake.pt", "fake.npz", "fake.pkl"])
def test_files_that_are_not_what_their_name_says(quick, tmp_path, name):
    (tmp_path / name).write_text("This is a letter, and not a short one, to whom it may concern.")
    chosen = {"data": tmp_path / name} if name == "fake.npz" else {"model": tmp_path / name}
    said = quick(*(["--trust"] if name == "fake.pkl" else []), **chosen)
    assert name in said.complaint
    assert "expected" in said.complaint
    assert "got" in said.complaint
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_refused_with_what_to_do_instead(quick, tmp_path):
    (tmp_path / "net.pkl").write_bytes(b"\x80\x04N.")
    complaint = quick(model=tmp_path / "net.pkl").complaint
    assert "can run code" in complaint
    assert "skops" in complaint
    assert "--trust" in complaint


def test_nan_logits_name_the_example_before_anything_is_written(quick, tmp_path):
    complaint = quick("--examples", 360, model="tests.factories:returns_nan").complaint
    assert "logits of tests.factories:returns_nan for example" in complaint
    assert "expected finite, got NaN" in complaint
    assert not (tmp_path / "run").exists()


def test_nan_logits_that_only_the_attack_meets_leave_nothing_behind(quick, tmp_path):
    complaint = quick("--examples", 40, model="tests.factories:nan_off_data").complaint
    assert "logits of tests.factories:nan_off_data for example" in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["audti"], ["command", "got 'audti'", "did you mean 'audit'"]),
        (["audit"], ["MODEL", "expected a value", "got none", "calipers audit --help"]),
        (["audit", "digits-mlp"], ["--data", "expected what to audit on", "got none"]),
        (
            ["audit", "mnist-cnn", "--data", "digits"],
            ["mnist-cnn", "got an architecture", "--arch mnist-cnn"],
        ),
        (["audit", "digits-mlp", "--data"], ["--data", "expected a value", "got none"]),
        (["report"], ["RUN", "expected a value"]),
        (["report", "nowhere"], ["nowhere", "expected the folder of a finished run", "got nothing there"]),
        (["report", "."], ["expected the folder of a finished run", "got no run.json"]),
        (["compare", "a"], ["SECOND", "expected a value"]),
        (["compare", "a", "b"], ["a", "expected the folder of a finished run", "got nothing there"]),
        (["data", "lits"], ["data", "got 'lits'", "did you mean 'list'"]),
        (["data", "verify", "mnits"], ["data set", "got 'mnits'", "did you mean 'mnist'"]),
        (["data", "fetch", "digits"], ["data set", "expected one with official files", "got 'digits'"]),
        (["papers", "run", "strict.theorem"], ["figure", "got 'strict.theorem'", "strict_lower_bound.theorem1"]),
        (["papers", "run", "x", "--scale", "big"], ["--scale", "expected smoke, cpu, paper", "got 'big'"]),
    ],
)
def test_other_commands(calipers, tmp_path, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    complaint = calipers(*words).complaint
    for part in parts:
        assert part in complaint
    assert list(tmp_path.iterdir()) == []


def test_what_was_typed_is_said_back_as_it_was_typed(quick):
    # A terminal library would make a smiley of the one and bold letters of the other.
    assert "'[bold]x[/bold]'" in quick("--budget", "[bold]x[/bold]").complaint
    assert "tests.nowhere:x:" in quick(model="tests.nowhere:x").complaint


def test_resume_with_other_settings_says_which(quick, tmp_path):
    assert quick("--eps", "0.1", "--quiet").status == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    complaint = quick("--eps", "0.2", "--seed", "3", "--resume").complaint
    assert "eps: [0.1] then, [0.2] now" in complaint
    assert "seed: 0 then, 3 now" in complaint
    assert "budget" not in complaint
    assert "expected" in quick("--eps", "0.2").complaint, "without --resume the folder is another run's as well"
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_an_out_that_holds_other_files_is_left_alone(quick, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for more in ([], ["--replace"], ["--resume"]):
        assert "got other files" in quick(*more).complaint
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_replace_leaves_what_is_not_the_runs(quick, tmp_path):
    quick("--eps", "0.1", "--quiet")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert quick("--eps", "0.2", "--replace", "--quiet").status == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_replace_keeps_the_old_run_when_the_new_one_cannot_start(quick, tmp_path):
    quick("--eps", "0.1", "--quiet")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert quick("--examples", 360, "--replace", model="tests.factories:returns_nan").status == 2
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_an_out_that_is_a_file_or_below_one(quick, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "expected a folder, got a file" in quick("--out", tmp_path / "file").complaint
    assert str(tmp_path / "file" / "run") in quick("--out", tmp_path / "file" / "run").complaint
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_run_json(quick, calipers, tmp_path):
    quick("--quiet")
    (tmp_path / "run" / "run.json").write_text("{")
    assert "expected the settings of a run" in quick("--resume").complaint
    assert "expected whole files" in calipers("report", tmp_path / "run").complaint
    assert quick("--replace", "--quiet").status == 0


def test_a_full_disk_from_the_start(quick, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("calipers.runner.files.os.fsync", full)
    complaint = quick().complaint
    assert "expected a disk that takes" in complaint
    assert "got No space left on device" in complaint
    assert "make room" in complaint
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_keeps_what_is_finished(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(audit.__globals__, "SHARD", 2)
    written, real = [], os.fsync

    def filling(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:  # run.json and one part fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as disk:
        disk.setattr("calipers.runner.files.os.fsync", filling)
        assert "part-00001" in quick("--eps", "0.1").complaint
    kept = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    assert kept == {"run.json", "parts", "parts/part-00000"}
    assert "unfinished; --resume goes on with it" in quick("--eps", "0.1").complaint
    assert quick("--eps", "0.1", "--resume", "--quiet").status == 0
    assert quick("--eps", "0.1", "--quiet", "--out", tmp_path / "whole").status == 0
    rows = "examples.parquet"
    assert (tmp_path / "run" / rows).read_bytes() == (tmp_path / "whole" / rows).read_bytes()


def test_ctrl_c_says_what_is_kept(quick, tmp_path, monkeypatch):
    real, done = audit.__globals__["close_brackets"], []

    def stopped(*given, **options):
        if len(done) == stopped.after:
            raise KeyboardInterrupt
        done.append(1)
        return real(*given, **options)

    monkeypatch.setitem(audit.__globals__, "SHARD", 2)
    monkeypatch.setitem(audit.__globals__, "close_brackets", stopped)
    stopped.after = 0
    said = quick("--eps", "0.1")
    assert said.status == 130
    assert said.err == "calipers: stopped before the first shard of the examples was finished: nothing is kept\n"
    assert not (tmp_path / "run").exists()
    stopped.after = 2
    assert quick("--eps", "0.1").err == "calipers: stopped; 2 finished shards stay, and --resume goes on from there\n"
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 2


def test_a_softmax_is_named_in_terminal_and_report(quick, tmp_path):
    said = quick("--eps", "0.1", model="tests.factories:ends_in_softmax")
    assert "nothing is certified: expected operators" in said.out
    assert "got 'softmax'; leave it out and hand over the logits" in said.out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing is certified: expected operators" in page
    assert "leave it out and hand over the logits" in page


def test_a_damaged_part_is_done_again(quick, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(audit.__globals__, "SHARD", 2)
    assert quick("--eps", "0.1", "--quiet", "--out", tmp_path / "whole").status == 0
    with monkeypatch.context() as stopped:
        stopped.setitem(audit.__globals__, "write_run", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        assert quick("--eps", "0.1").status == 130
    part = tmp_path / "run" / "parts" / "part-00001"
    content = bytearray(part.read_bytes())
    content[300] ^= 1
    part.write_bytes(content)
    assert quick("--eps", "0.1", "--resume", "--quiet").status == 0
    assert "part-00001 is damaged" in caplog.text
    rows = "examples.parquet"
    assert (tmp_path / "run" / rows).read_bytes() == (tmp_path / "whole" / rows).read_bytes()
