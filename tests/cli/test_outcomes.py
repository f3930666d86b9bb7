"""What a command says and leaves behind when nothing is wrong with what was typed."""

import json
from xml.etree import ElementTree

import pandas as pd
import pytest

from calipers.audit import SandwichBroken
from calipers.records import Summary


def test_the_table_the_report_and_the_run(quick, tmp_path):
    said = quick("--eps", "0.05", "--eps", "0.1")
    assert said.status == 0
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0].startswith("digits-linear on digits: 5 examples, clean accuracy 80.0 %")
    assert [line.split()[:2] for line in lines[2:4]] == [["linf", "0.05"], ["linf", "0.1"]]
    assert lines[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "adversarials.safetensors", "checks.json", "examples.parquet", "report.html", "run.json", "summary.json",
    ]  # fmt: skip


def test_json_is_the_summary_and_nothing_else(quick, tmp_path):
    said = quick("--eps", "0.1", "--json")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert json.loads(said.out)["schema"] == 1
    Summary.model_validate_json(said.out)


def test_quiet_says_nothing_not_even_warnings(quick):
    assert quick("--eps", "5", "--quiet") == (0, "", "")
    assert quick("--eps", "0.1", "--quiet", "--replace", model="tests.factories:in_train_mode") == (0, "", "")


@pytest.mark.parametrize(("norm", "eps", "width"), [("linf", "1", "1"), ("l2", "8", "8"), ("l1", "70", "64")])
def test_an_eps_as_large_as_the_box_is_a_warning(quick, norm, eps, width):
    said = quick("--norm", norm, "--eps", eps)
    assert said.status == 0
    assert said.err == f"calipers: warning: eps {eps} is as large as the input box, which is {width} wide in {norm}\n"


def test_an_eps_within_the_box_is_none(quick):
    assert quick("--norm", "l2", "--eps", "7.9").err == ""


def test_train_mode_is_a_warning_in_one_line(quick):
    said = quick(model="tests.factories:in_train_mode")
    assert said.status == 0
    (line,) = said.err.splitlines()
    assert line.startswith("calipers: warning: tests.factories:in_train_mode was in train mode")
    assert "check failed: model-in-eval-mode" in said.out


@pytest.mark.parametrize(("least", "status"), [("0", 0), ("0.8", 0), ("0.81", 1), ("1", 1)])
def test_fail_under_is_about_what_is_proved_at_the_largest_eps(quick, least, status):
    # 4 of the 5 are proved at the larger, in whatever order they are given.
    said = quick("--eps", "0.1", "--eps", "0.01", "--fail-under", least)
    assert said.status == status
    if status:
        assert said.err == f"calipers: --fail-under: expected at least {least} proved, got 0.8000\n"


def test_a_finished_run_is_read_back_on_resume(quick, tmp_path):
    first = quick("--eps", "0.1")
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    again = quick("--eps", "0.1", "--resume")
    assert again == first
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before


def test_resume_of_nothing_is_a_new_run(quick, tmp_path):
    assert quick("--eps", "0.1", "--resume", "--quiet").status == 0
    assert len(pd.read_parquet(tmp_path / "run" / "examples.parquet")) == 5


def test_the_run_folder_has_a_name_by_default(calipers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--data", "digits", "--norm", "l2", "--examples", 2, "--budget", "quick", "--quiet")
    assert calipers("audit", "digits-linear", *words).status == 0
    assert (tmp_path / "runs" / "digits-linear-digits-l2" / "summary.json").is_file()


def test_weights_with_their_architecture(quick, tmp_path):
    from safetensors.torch import save_file

    from calipers.models import ARCHITECTURES

    save_file(ARCHITECTURES["digits-mlp"].build().state_dict(), tmp_path / "net.safetensors")
    said = quick("--arch", "digits-mlp", model=tmp_path / "net.safetensors")
    assert said.status == 0
    assert "--arch" in quick("--out", tmp_path / "other", model=tmp_path / "net.safetensors").complaint


def test_the_words_of_the_user_come_before_and_after_the_options(calipers, tmp_path):
    out = tmp_path / "run"
    options = ("--data", "digits", "--examples", 2, "--budget", "quick", "--out", out, "--quiet", "--eps", "0.1")
    assert calipers("audit", *options, "digits-linear").status == 0


def test_report_writes_the_page_again(quick, calipers, tmp_path):
    quick("--eps", "0.1", "--quiet")
    page = tmp_path / "run" / "report.html"
    page.unlink()
    assert calipers("report", tmp_path / "run") == (0, f"{page}\n", "")
    assert page.read_text().startswith("<!")
    assert calipers("report", tmp_path / "run", "--out", tmp_path / "p.html") == (0, f"{tmp_path / 'p.html'}\n", "")


def test_compare_pairs_the_examples(quick, calipers, tmp_path):
    quick("--eps", "0.1", "--quiet", "--out", tmp_path / "a")
    quick("--eps", "0.1", "--quiet", "--out", tmp_path / "b", model="digits-mlp")
    said = calipers("compare", tmp_path / "a", tmp_path / "b")
    assert (said.status, said.err) == (0, "")
    assert "digits-linear" in said.out
    assert "digits-mlp" in said.out
    assert "A and B on 5 common examples" in said.out


def test_data_list(calipers, monkeypatch, tmp_path):
    monkeypatch.setenv("CALIPERS_DATA", str(tmp_path))
    said = calipers("data", "list")
    assert said.status == 0
    assert said.out.splitlines()[0].split() == ["digits", "embedded"]
    assert said.out.splitlines()[-1] == f"$CALIPERS_DATA: {tmp_path}"
    assert json.loads(calipers("data", "list", "--json").out)["mnist"] == "missing"


def test_data_verify_says_no_for_each_missing_file(calipers, monkeypatch, tmp_path):
    monkeypatch.setenv("CALIPERS_DATA", str(tmp_path))
    said = calipers("data", "verify", "mnist")
    assert said.status == 1
    assert all(line.startswith("NO ") and line.endswith(": no such file") for line in said.out.splitlines())
    assert len(said.out.splitlines()) == 4


def test_papers_list_and_run(calipers, tmp_path):
    name = "strict_lower_bound.theorem1"
    assert any(line.split()[0] == name for line in calipers("papers", "list").out.splitlines())
    said = calipers("papers", "run", name, "--scale", "smoke", "--out", tmp_path)
    assert (said.status, said.err) == (0, "")
    files = [tmp_path / f"{name}.{kind}" for kind in ("csv", "svg", "json")]
    told = json.loads(files[2].read_text())
    lines = [f"the paper says: {told['claim']}", *(f"found: {one}" for one in told["findings"])]
    assert said.out.splitlines() == [*lines, *(f"file: {file}" for file in files)]
    assert len(told["findings"]) > 0 and told["scale"] == "smoke"
    quiet = calipers("papers", "run", name, "--scale", "smoke", "--out", tmp_path, "--quiet")
    assert quiet.out.splitlines() == [f"file: {file}" for file in files]


def test_a_broken_sandwich_is_our_bug(quick, monkeypatch, tmp_path):
    def broken(*arguments: object) -> None:
        raise SandwichBroken("example 3: affine certifies 2.0, but fmn found a witness at 1.0")

    monkeypatch.setattr("calipers.audit.cascade.Brackets.check", broken)
    said = quick()
    assert said.status == 3
    assert said.err == "calipers: SandwichBroken: example 3: affine certifies 2.0, but fmn found a witness at 1.0\n"
    assert said.out == ""


def test_any_other_bug_shows_where_it_is_and_is_not_taken_for_a_no(quick, monkeypatch):
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("calipers.audit.cascade.Brackets.check", broken)
    said = quick("--eps", "0.1", "--fail-under", "0")
    assert said.status == 3
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1] == "calipers: ZeroDivisionError: by zero"


def test_junit_answers_fail_under_and_names_every_check(quick, tmp_path):
    file = tmp_path / "junit.xml"
    for least, failures in (("0.8", 0), ("0.81", 1)):
        said = quick("--eps", "0.1", "--fail-under", least, "--junit", str(file), "--replace")
        assert said.status == failures
        (suite,) = ElementTree.parse(file).getroot()
        assert len(suite.findall(".//failure")) == failures
    checks = {case.get("name") for case in suite if case.get("classname") == "calipers.checks"}
    assert checks == {check["id"] for check in json.loads((tmp_path / "run" / "summary.json").read_text())["checks"]}


def test_junit_in_no_folder_is_said_before_anything_is_computed(quick, tmp_path):
    said = quick("--junit", str(tmp_path / "none" / "junit.xml"))
    assert said.status == 2
    assert "expected a file in an existing folder" in said.err
    assert not (tmp_path / "run").exists()
