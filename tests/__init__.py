"""The tests; a package so that they can share `tests.oracles`.

Examples that hypothesis draws are the same in every run. Other ones, now and then, find what these do not:

    python -m tests.fuzz --networks 2000 --seed 7           # random networks against all oracles, ten minutes
    python -m pytest --hypothesis-profile new --hypothesis-seed 7

The kernels of the CPU do not check their indices, unless they are compiled so, in a place of their own:

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m pytest tests/backends tests/metrics tests/graph
"""
