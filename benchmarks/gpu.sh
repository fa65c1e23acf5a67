#!/bin/bash
# What is checked and measured on a GPU: bash benchmarks/gpu.sh OUT [STEP ...]
#
# Each step has a time limit and writes OUT/STEP.log, benchmarks OUT/*.json as well, row by row: what was done when a
# step is stopped is there. Without steps all of them, the most telling first. PYTHON is python3 unless it is set.
set -u
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit
shift
steps=${*:-smoke kernels many metrics encode suite memcheck racecheck spectral crossover sparsities}

limited() { # STEP SECONDS COMMAND...
    local step=$1 seconds=$2
    shift 2
    echo "== $step: $*"
    timeout -k 20 -s INT "$seconds" "$@" >"$out/$step.log" 2>&1
    echo "== $step: exit status $?, ${SECONDS} s; the end of $step.log:"
    tail -n "${TAIL:-15}" "$out/$step.log"
    SECONDS=0
}
bench() { # STEP SECONDS SCRIPT ARGUMENTS...
    local step=$1 seconds=$2 script=$3
    shift 3
    limited "$step" "$seconds" "$python" "benchmarks/$script.py" "$@" --out "$out/gpu_$step.json"
}
tests() { # STEP SECONDS ARGUMENTS...: a BLAS of many threads in each worker would fight for the cores
    local step=$1 seconds=$2
    shift 2
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
        limited "$step" "$seconds" "$python" -m pytest -q -n "${WORKERS:-12}" --device cuda -p no:cacheprovider "$@"
}
sanitized() { # TOOL: torch's own allocator cuts arrays out of large pieces, in which nothing lies outside
    MGE_SANITIZE=$1 PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync \
        limited "$1" 580 compute-sanitizer --tool "$1" "$python" -m pytest -q -p no:cacheprovider \
        tests/backends/test_conformance.py --device cuda -k cuda-0
}

case " $steps " in
*" kernels "* | *" suite "* | *"check "*)
    "$python" -c 'import igraph, lightgbm' || { echo "tests need igraph and lightgbm: pip install them first"; exit 3; } ;;
esac

for step in $steps; do
    case $step in
    kernels) tests kernels 400 tests/backends tests/test_on_gpu.py tests/metrics/test_on_device.py -k cuda ;;
    smoke) limited smoke 120 "$python" -m mge_gpu doctor ;;
    suite) tests suite 580 ;;
    many) bench many 300 gpu_topometrics many --skip-cpu ;;
    metrics) bench metrics 400 gpu_topometrics metrics --sparsities 0.8 --repeats 1 --skip-cpu \
        --against benchmarks/results/scale.json ;;
    sparsities) bench sparsities 580 gpu_topometrics metrics --sparsities 0.98,0.9,0.6 --repeats 1 --skip-cpu \
        --against benchmarks/results/scale.json ;;
    encode) bench encode 400 gpu_encode ;;
    spectral) bench spectral 300 gpu_spectral ;;
    crossover) bench crossover 300 crossover --device cuda ;;
    memcheck | racecheck) sanitized "$step" ;;
    *) echo "no step $step" && exit 2 ;;
    esac
done
