"""`python -m mge_gpu` is the command `mge-gpu`."""

from mge_gpu.cli import main

if __name__ == "__main__":
    main()
