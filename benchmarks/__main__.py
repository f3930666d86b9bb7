"""``python -m benchmarks [pgd] [minimal] [audit] [svm_path] [FILE.safetensors]``: side by side; needs $CALIPERS_DATA.

FILE holds the weights of an adversarially trained `mnist-cnn`; without it the tables of that network are left out.
"""

import sys
from functools import partial

from benchmarks import audit, minimal, pgd, svm_path

robust = next((word for word in sys.argv[1:] if word.endswith(".safetensors")), None)
chosen = [word for word in sys.argv[1:] if word != robust] or ["pgd", "minimal", "audit", "svm_path"]
runs = {
    "pgd": partial(pgd.main, robust),
    "minimal": partial(minimal.main, robust),
    "audit": audit.main,
    "svm_path": svm_path.main,
}
for name, run in runs.items():
    if name in chosen:
        run()
