"""``python -m benchmarks [NAME…]``: side by side with the peers, in one run; needs $CALIPERS_DATA. See README.md."""

import sys
from importlib import import_module

NAMES = ("pgd", "audit", "svm_path", "training", "defences")
for name in sys.argv[1:] or NAMES:
    import_module(f"benchmarks.{name}").main()
