"""``python -m calipers`` is ``calipers``."""

from calipers.cli import main

main()
