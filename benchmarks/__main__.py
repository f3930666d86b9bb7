"""``python -m benchmarks [pgd] [audit] [svm_path] [training] [defences]``: in one run; needs $CALIPERS_DATA."""

import sys

from benchmarks import audit, defences, pgd, svm_path, training

chosen = sys.argv[1:] or ["pgd", "audit", "svm_path", "training"]
rooms = {"pgd": pgd.main, "audit": audit.main, "svm_path": svm_path.main, "training": training.main}
rooms["defences"] = defences.main
for name, run in rooms.items():
    if name in chosen:
        run()
