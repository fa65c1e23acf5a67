"""Every kernel compiles for the GPUs that are supported, spills nothing, and runs on the host as well."""

import ctypes
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.backends.cuda import peel
from mge_gpu.backends.cuda.cupy_runtime import BLOCK, RESIDENT, WIDE, source_text
from mge_gpu.backends.cuda.resident import BLOCK_ARRAYS, BLOCK_NUMBERS
from tests.kernels.host_runtime import KERNELS

SOURCES = sorted(p.stem for p in KERNELS.glob("*.cu"))
ARCHITECTURES = ["sm_80", "sm_90"]
REGISTERS = 128  # of a thread: 512 threads of a block fit


@cache
def nvrtc() -> ctypes.CDLL:
    """The compiler that comes with torch's CUDA builds; it needs no GPU."""
    folder = Path(torch.__file__).parents[1] / "nvidia"
    found = sorted(folder.rglob("libnvrtc.so.*"))
    if not found:
        pytest.skip("NVRTC, which comes with torch's CUDA builds, is not installed: no kernel is compiled")
    return ctypes.CDLL(str(found[0]))


@cache
def compiled(source: str, architecture: str) -> tuple[str, str]:
    """Compile ``kernels/<source>.cu`` as a GPU's runtime does; returns the log of the assembler, and PTX."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    text = source_text(source).encode()
    assert not library.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), 0, None, None)
    flags = ["--std=c++17", "-lineinfo", "-ftz=true", "-Xptxas=-v"]  # CuPy adds the third
    options = [f"--gpu-architecture={architecture}", *flags]
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    failed = library.nvrtcCompileProgram(program, len(options), array)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, code)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode(), code.value.decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_and_spill_nothing(source: str, architecture: str) -> None:
    log, code = compiled(source, architecture)
    names = re.findall(r"Compiling entry function '(\w+)'", log)
    stack = [int(x) for x in re.findall(r"(\d+) bytes stack frame", log)]
    spilled = [int(x) for x in re.findall(r"(\d+) bytes spill (?:stores|loads)", log)]
    registers = [int(x) for x in re.findall(r"Used (\d+) registers", log)]
    assert sorted(names) == sorted(kernels(source)) and len(registers) == len(stack) == len(names)
    assert not any(stack + spilled), log
    assert max(registers) <= REGISTERS, log
    assert ".entry" in code and "cvt.ftz.f64" not in code  # weights below 1.2e-38 are not nothing


def kernels(source: str) -> list[str]:
    """Names of the kernels that a source defines."""
    text = (KERNELS / f"{source}.cu").read_text()
    return re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([\d, ]+\) )?(\w+)\(', text)


@pytest.mark.parametrize("source", SOURCES)
def test_every_kernel_can_be_called_on_the_host(source: str) -> None:
    exported = re.findall(r"^MGE_EXPORT\w*\((\w+)\)$", (KERNELS / f"{source}.cu").read_text(), re.MULTILINE)
    assert exported == kernels(source)


@pytest.mark.parametrize("source", SOURCES)
def test_blocks_that_wait_for_each_other_fit_on_a_gpu_together(source: str) -> None:
    text = (KERNELS / f"{source}.cu").read_text()
    together = re.findall(r"^MGE_EXPORT_TOGETHER\((\w+)\)$", text, re.MULTILINE)
    bounded = re.findall(rf"__launch_bounds__\({BLOCK}, {RESIDENT}\) (\w+)\(", text)
    assert all(f"__launch_bounds__({n}, 1) {k}(" in text for k, n in WIDE.items() if f" {k}(" in text)
    assert set(together) <= set(bounded) and ("__shared__" not in text or not together)


def fields(header: str, struct: str) -> list[str]:
    """Names of a struct's members, in order."""
    text = (KERNELS / header).read_text()
    body = re.search(rf"struct {struct} {{(.*?)\n}};", text, re.DOTALL)
    assert body is not None
    return re.findall(r"(\w+)(?:\[\d\])?;", body[1])


def test_tables_have_the_layout_of_the_structs() -> None:
    assert fields("adjacency.cuh", "Adjacency") == [*Adjacency._fields, "partitions", "nodes", "hubs"]
    assert fields("block.cuh", "Block") == [*BLOCK_ARRAYS, "nonzeros", *BLOCK_NUMBERS, "sharers"]
    assert fields("peel.cu", "Peeling") == ["arrived", "left", "found"]
    assert fields("peel.cu", "Found") == ["nodes", "hubs", "lowest"]
    assert peel.STATE == [0, 0, *3 * [0, 0, peel.NONE]]
    assert set(BLOCK_ARRAYS) | set(BLOCK_NUMBERS) <= set(Block._fields)
