from __future__ import annotations

from xml.etree import ElementTree

from calipers.records import Check
from calipers.report import junit
from tests.report.factory import CHECKS, make_run


def test_there_is_a_case_for_every_promise_and_every_check() -> None:
    run = make_run([0.2, 0.0], [0.3, 0.05], eps=(0.1, 0.02), checks=CHECKS)
    for fail_under, failures in ((None, 1), (0.5, 1), (0.6, 2)):
        suite = ElementTree.fromstring(junit(run, fail_under).encode())[0]
        assert len(suite) == int(suite.get("tests") or 0) == 5
        assert len(suite.findall(".//failure")) == int(suite.get("failures") or 0) == failures
        assert len(suite.findall(".//skipped")) == int(suite.get("skipped") or 0) == 1
    broken = [case.get("name") for case in suite if case.find("failure") is not None]
    assert broken == ["proved at linf eps 0.1", "random-noise-is-weaker"]


def test_whatever_the_user_called_things_is_a_well_formed_file() -> None:
    evil = "<script>&\x00\x1b]]>\ud800\"'"
    check = Check.model_construct(id=evil, question=evil, verdict="failed", evidence=evil, advice=evil)
    made = ElementTree.fromstring(junit(make_run(checks=(check,), model={"name": evil})).encode())
    assert "<script>&" in (made[0].get("name") or "")
    assert "<script>&" in (made[0][-1][0].get("message") or "")
