"""``python -m benchmarks [NAME…] [FILE.safetensors]``: side by side with the peers, in one run; needs $CALIPERS_DATA.

NAME is a file of this folder; FILE the weights of an adversarially trained `mnist-cnn`, as `calipers train` writes
them; without it the tables of that network are left out.
"""

import sys
from importlib import import_module

NAMES = ("pgd", "minimal", "fixed", "audit", "svm_path", "training", "defences", "certificates")
ON_ROBUST = ("pgd", "minimal", "fixed")

robust = next((word for word in sys.argv[1:] if word.endswith(".safetensors")), None)
for name in [word for word in sys.argv[1:] if word != robust] or NAMES:
    main = import_module(f"benchmarks.{name}").main
    if name in ON_ROBUST:
        main(robust)
    else:
        main()
