"""A run as a JUnit file: what CI services read, one test for every promise and one for every check."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from calipers.records import Run
from calipers.report.facts import facts_of
from calipers.report.words import number

__all__ = ["junit"]

# What XML 1.0 cannot hold, not even escaped.
_UNSAYABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(run: Run, fail_under: float | None = None) -> str:
    """One test case for every asked eps and one for every check of the evaluation.

    An eps fails where less than ``fail_under`` is proved (only the largest is held to it, as by ``--fail-under``); a
    check fails with its evidence; one that does not apply is skipped.

    Arguments:
        run: a finished run.
        fail_under: the fraction that must be proved at the largest eps; None promises nothing.

    Example:
        >>> import pandas as pd
        >>> from calipers.records import Check, Summary
        >>> row = {"index": 0, "label": 1, "predicted": 1, "lower": 0.1, "certificate": "affine", "upper": 0.2,
        ...        "attack": "pgd", "forwards": 9, "gradients": 8}
        >>> summary = Summary(schema=1, examples=1, clean_accuracy=1, seconds=1, forwards=9, gradients=8, threats=(),
        ...                   checks=(), trusted=False)
        >>> check = Check(id="logits", question="Logits?", verdict="failed", evidence="0 < 1", advice="")
        >>> print(junit(Run("run1", {}, pd.DataFrame([row]), {}, (check,), summary)))
        <?xml version='1.0' encoding='utf-8'?>
        <testsuites tests="1" failures="1" skipped="0" time="1.000">
          <testsuite name="a model on unnamed data" tests="1" failures="1" skipped="0" time="1.000">
            <testcase classname="calipers.checks" name="logits">
              <failure message="0 &lt; 1">Logits? </failure>
            </testcase>
          </testsuite>
        </testsuites>
        <BLANKLINE>
    """
    facts = facts_of(run)
    cases = [*_promises(run, fail_under), *_checks(run)]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{run.summary.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _say(f"{facts.model} on {facts.data}"), **counts})
    suite.extend(cases)
    ElementTree.indent(root)
    page: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return page.decode() + "\n"


def _promises(run: Run, fail_under: float | None) -> list[ElementTree.Element]:
    cases, threats = [], sorted(run.summary.threats, key=lambda threat: threat.eps)
    for threat in threats:
        case = _case("calipers.robustness", f"proved at {threat.norm} eps {number(threat.eps)}")
        found = f"proved {threat.proved:.4f}, not broken {threat.not_broken:.4f} of {run.summary.examples} examples"
        if fail_under is not None and threat is threats[-1] and threat.proved < fail_under:
            failure = ElementTree.SubElement(case, "failure", {"message": f"expected at least {fail_under:g} proved"})
            failure.text = found
        else:
            ElementTree.SubElement(case, "system-out").text = found
        cases.append(case)
    return cases


def _checks(run: Run) -> list[ElementTree.Element]:
    cases = []
    for check in run.checks:
        case = _case("calipers.checks", check.id)
        if check.verdict == "failed":
            failure = ElementTree.SubElement(case, "failure", {"message": _say(check.evidence)})
            failure.text = _say(f"{check.question} {check.advice}")
        elif check.verdict == "not applicable":
            ElementTree.SubElement(case, "skipped", {"message": _say(check.evidence)})
        else:
            ElementTree.SubElement(case, "system-out").text = _say(check.evidence)
        cases.append(case)
    return cases


def _case(room: str, name: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", {"classname": room, "name": _say(name)})


def _say(text: str) -> str:
    return _UNSAYABLE.sub("�", text)
