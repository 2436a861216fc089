"""`python -m pde_train.report`."""

from __future__ import annotations

import sys

from pde_train.study.report import main

if __name__ == "__main__":
    sys.exit(main())
