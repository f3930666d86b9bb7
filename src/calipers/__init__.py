"""Calipers: how robust is a classifier? A certified lower bound and an attack's upper bound for every input.

The rooms: :mod:`calipers.audit` (the main job), :mod:`calipers.attacks`, :mod:`calipers.certificates`,
:mod:`calipers.models`, :mod:`calipers.data`, :mod:`calipers.theory`, :mod:`calipers.threats`, :mod:`calipers.papers`.
Importing this package imports none of them.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("calipers")
