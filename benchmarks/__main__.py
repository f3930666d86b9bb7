"""``python -m benchmarks [pgd] [audit]``: side by side, in one run; needs $CALIPERS_DATA."""

import sys

from benchmarks import audit, pgd

chosen = sys.argv[1:] or ["pgd", "audit"]
for name, run in (("pgd", pgd.main), ("audit", audit.main)):
    if name in chosen:
        run()
