"""What goes into the wheel; the metadata stand in pyproject.toml.

The CUDA sources live in ``kernels/`` beside the package and are installed inside it, as
``mge_gpu/kernels/*.cu``, so that they can be compiled on first use wherever the package lies.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mge_gpu", "mge_gpu.*"]), "mge_gpu.kernels"],
    package_dir={"mge_gpu.kernels": "kernels"},
    package_data={
        "mge_gpu": ["py.typed"],
        "mge_gpu.kernels": ["*.cu", "*.cuh", "*.h"],
        "mge_gpu.ranking": ["data/*"],
    },
    # Nothing but what is listed above: README files of the folders stay at home.
    include_package_data=False,
    zip_safe=False,
)
