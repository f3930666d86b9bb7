"""Can the numbers be trusted? Tests of the evaluation itself, each with evidence and a verdict."""

from calipers.diagnostics.checks import run_checks

__all__ = ["run_checks"]
