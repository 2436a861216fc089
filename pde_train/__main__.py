"""`python -m pde_train`."""

from pde_train.cli import main

if __name__ == "__main__":
    main()
