"""The attack, certificate, figure and data set of CONTRIBUTING.md pass what any newcomer must pass."""

import itertools
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType

import pytest

from calipers.attacks import fmn
from calipers.certificates import CERTIFICATES, lipschitz
from calipers.models import references
from calipers.papers import figures, registry
from calipers.threats import Threat
from tests.attacks import test_conformance as attack_laws
from tests.certificates import test_conformance as certificate_laws
from tests.docs.pages import ROOT, run_python


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> dict:
    """What the code of CONTRIBUTING.md defines; its figure does not stay in the registry."""
    before = set(figures())
    names = run_python(ROOT / "CONTRIBUTING.md", tmp_path_factory.mktemp("contributing"))
    for name in set(registry._FIGURES) - before:
        names["registered"] = registry._FIGURES.pop(name)
    return names


def laws_of(suite: ModuleType, subject: str, one: str) -> list:
    """Every law that the subject called ``one`` must pass, in every case of the law's other parameters."""
    found = []
    for name, law in vars(suite).items():
        marks = [mark for mark in getattr(law, "pytestmark", []) if mark.name == "parametrize"]
        if name.startswith("test_") and any(
            mark.args[0] == subject and one in map(str, mark.args[1]) for mark in marks
        ):
            others = [list(cases(*mark.args)) for mark in marks if mark.args[0] != subject]
            for case in itertools.product(*others):
                found.append(pytest.param(law, dict(itertools.chain.from_iterable(case)), id=name))
    assert found
    return found


def cases(names: str | tuple[str, ...], values: Iterable) -> Iterator[list[tuple[str, object]]]:
    """What one parametrize mark stands for: name and value, or several of them at once."""
    for value in values:
        yield [(names, value)] if isinstance(names, str) else list(zip(names, value, strict=True))


@pytest.mark.parametrize(("law", "case"), laws_of(attack_laws, "contract", "fgsm"))
def test_the_attack_passes_the_laws(taught, law: FunctionType, case: dict):
    law(taught["contract"], **case)


@pytest.mark.parametrize(("law", "case"), laws_of(certificate_laws, "name", "affine"))
def test_the_certificate_passes_the_laws(taught, monkeypatch, law: FunctionType, case: dict):
    monkeypatch.setitem(CERTIFICATES, "product", taught["product"])
    law("product", **case)


def test_the_certificate_is_never_above_lipschitz(taught):
    compared = 0
    for reference in references():
        some = (reference.classifier, reference.x, reference.y)
        for norm in ("linf", "l2", "l1"):
            ours, theirs = taught["product"](*some, norm).radius, lipschitz(*some, norm).radius
            assert (ours <= theirs * (1 + 1e-9)).all()
            compared += len(ours)
    assert compared > 50


def test_the_attack_is_nearly_as_good_as_fmn_in_its_own_norms(taught):
    r = next(r for r in references() if r.classifier.name == "affine-2")
    ours = taught["momentum"](r.classifier, r.x, r.y, Threat("linf")).distance
    assert (ours <= 1.01 * fmn(r.classifier, r.x, r.y, Threat("linf")).distance).all()


def test_the_figure_and_the_data_set_are_whole(taught):
    result = taught["registered"].reproduce("smoke")
    assert list(result.table) == ["fgsm", "fmn"]
    assert len(result.table) == 2
    assert result.findings == ("FGSM is nearer on 0 of 2 examples.",)
    data = taught["two_moons"]("test")
    assert data.shape == (2,)
    assert data.box.contains(data.x).all()
    assert not (data.x == taught["two_moons"]("train").x).all()
