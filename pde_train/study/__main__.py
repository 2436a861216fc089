"""`python -m pde_train.study`."""

from __future__ import annotations

import sys

from pde_train.study.parts import main

if __name__ == "__main__":
    sys.exit(main())
