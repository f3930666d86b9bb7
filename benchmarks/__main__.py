"""``python -m benchmarks [pgd] [audit] [svm_path] [certificates]``: side by side, in one run; needs $CALIPERS_DATA."""

import sys

from benchmarks import audit, certificates, pgd, svm_path

chosen = sys.argv[1:] or ["pgd", "audit", "svm_path", "certificates"]
rooms = {"pgd": pgd.main, "audit": audit.main, "svm_path": svm_path.main, "certificates": certificates.main}
for name, run in rooms.items():
    if name in chosen:
        run()
