"""The door: parse, call one use case, say what came out, leave with an exit status. Start at ``app``."""

from calipers.cli.app import app, main, run

__all__ = ["app", "main", "run"]
