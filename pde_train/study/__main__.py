"""`python -m pde_train.study`."""

from __future__ import annotations

import signal
import sys

from pde_train.study.parts import main, terminate

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
