"""``python -m benchmarks [pgd] [audit] [svm_path] [defences]``: side by side, in one run; needs $CALIPERS_DATA."""

import sys

from benchmarks import audit, defences, pgd, svm_path

chosen = sys.argv[1:] or ["pgd", "audit", "svm_path"]
for name, run in (("pgd", pgd.main), ("audit", audit.main), ("svm_path", svm_path.main), ("defences", defences.main)):
    if name in chosen:
        run()
