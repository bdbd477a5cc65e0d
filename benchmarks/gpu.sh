#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build, check, sanitize and time the kernels, then the plans of whole detectors.
# Writes to OUT (default benchmarks/results): results as JSON, logs beside them. STEPS chooses (default: all, at most
# half an hour; `STEPS="install build tests bench"` are ten minutes), LIMIT_S ends it earlier.
#
# The machine needs python3 with torch (CUDA) and cupy, nvcc, g++ and cmake, and no network. What else is needed comes
# from WHEELS (default .whl), files that a machine with a network downloads for the other's Python:
#
#   python3 -m pip download --no-deps --only-binary :all: --python-version 3.12 -d .whl \
#     pytools siphash24 platformdirs msgspec typing-extensions \
#     onnx onnxruntime flatbuffers protobuf ml-dtypes packaging safetensors psutil opencv-python-headless simplejpeg \
#     tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings
#   python3 -m pip wheel --no-deps -w .whl tensorrt-rtx tensorrt-rtx-cu13  # these four, or all of tensorrt's own packages
#   python3 -m pip download --no-deps --no-build-isolation --no-binary pycuda -d .whl pycuda  # setuptools, numpy are there
#
# and detectors from BUNDLES (default .bundles), which a machine without a GPU makes: python -m benchmarks.gpu_bundles
#
# Exits 0 when everything passed; a step that fails does not keep the next ones from running.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

CHECKOUT=$PWD
OUT=$(realpath -m "${OUT:-benchmarks/results}")
WHEELS=$(realpath -m "${WHEELS:-.whl}")
BUNDLES=$(realpath -m "${BUNDLES:-.bundles}")
STEPS=${STEPS:-install build tests bench plans memcheck racecheck}
SITE=${SITE:-$(mktemp -d)/site}
PYTHON=${PYTHON:-python3}
CUDA=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")")

export PYTHONUNBUFFERED=1
export PYTHONPATH="$SITE"
export PATH="$CUDA/bin:$PATH"
export CUDA_ROOT="$CUDA"
export LIBRARY_PATH="$CUDA/lib64/stubs:/usr/local/nvidia/lib64:${LIBRARY_PATH:-}"
mkdir -p "$OUT" "$SITE"

failed=()
LIMIT_S=${LIMIT_S:-1800}

# wanted NAME: whether STEPS has it.
wanted() {
  [[ " $STEPS " == *" $1 "* ]]
}

# step NAME SECONDS COMMAND...: run with a limit, and within that of the whole script; keep the log, show its end.
step() {
  local name=$1 limit=$2 started=$SECONDS
  shift 2
  [ "$limit" -le $((LIMIT_S - SECONDS)) ] || limit=$((LIMIT_S - SECONDS))
  if [ "$limit" -gt 0 ] && timeout "$limit" "$@" >"$OUT/$name.log" 2>&1; then
    echo "== $name: ok, $((SECONDS - started)) s"
  else
    echo "== $name: FAILED, $((SECONDS - started)) s of $limit"
    failed+=("$name")
  fi
  tail -n "${LINES_SHOWN:-4}" "$OUT/$name.log"
}

# PyCUDA has no wheels. Its cuRAND part is not needed, and its library is not everywhere.
install_pycuda() {
  local source folder
  for source in "$WHEELS"/pycuda*.tar.gz; do
    [ -f "$source" ] || continue
    folder=$(mktemp -d)
    tar xzf "$source" -C "$folder" --strip-components 1
    echo 'CUDA_ENABLE_CURAND = False' >"$folder/siteconf.py"
    "$PYTHON" "$@" "$folder"
  done
}

# What the machine's Python lacks, then this project, compiled modules and all, into SITE.
install_all() {
  local offline=(-m pip install --quiet --no-index --no-deps --no-build-isolation --upgrade --target "$SITE")
  if [ -d "$WHEELS" ]; then
    find "$WHEELS" -name '*.whl' -exec "$PYTHON" "${offline[@]}" {} +
    install_pycuda "${offline[@]}"
  fi
  "$PYTHON" "${offline[@]}" . && cp -r benchmarks "$SITE/"
  "$PYTHON" -c 'import pycuda.driver as cuda; cuda.init(); print(cuda.Device(0).name())'
}

# Everything after runs in SITE: the packages of the checkout have no compiled modules.
build_kernels() {
  cd "$SITE" && "$PYTHON" -m kernels.cuda.build --library "$SITE/libmahalanobis.so"
}

run_tests() {
  cd "$SITE" && "$@" "$PYTHON" -m pytest -q -p no:cacheprovider -o filterwarnings= -m gpu --rootdir "$CHECKOUT" \
    --confcutdir "$CHECKOUT/tests/kernels" \
    "$CHECKOUT/tests/kernels/cuda/test_gpu.py" "$CHECKOUT/tests/kernels/cuda/test_stream.py"
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then
    echo "no compute-sanitizer on this machine: skipped"
    return
  fi
  run_tests compute-sanitizer --tool "$1" --error-exitcode 9
}

bench() {
  cd "$SITE" && "$PYTHON" -m benchmarks.bench_cuda --out "$OUT"
}

# A bundle's plans: built, their scores compared with ONNX Runtime's, timed from the host and back.
bench_plans() {
  cd "$SITE" && "$PYTHON" -m benchmarks.bench_plans "$1" --out "$OUT"
}

export -f install_pycuda install_all build_kernels run_tests sanitize bench bench_plans
export OUT SITE WHEELS PYTHON CHECKOUT

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
  echo "gpu.sh: expected an NVIDIA GPU, nvidia-smi finds none; run it on a GPU machine" >&2
  exit 2
}
if wanted install; then step install 240 bash -c install_all; fi
if wanted build; then step build 150 bash -c build_kernels; fi
if wanted tests; then step tests 120 bash -c run_tests; fi
if wanted bench; then LINES_SHOWN=70 step bench 200 bash -c bench; fi
if wanted plans; then
  found=("$BUNDLES"/*/bundle.json)
  if [ -f "${found[0]}" ]; then
    for bundle in "${found[@]}"; do
      folder=$(dirname "$bundle")
      LINES_SHOWN=20 step "plans-$(basename "$folder")" 400 bash -c 'bench_plans "$1"' bench "$folder"
    done
  else
    echo "== plans: FAILED, no bundle in $BUNDLES; make some with python -m benchmarks.gpu_bundles --out FOLDER"
    failed+=(plans)
  fi
fi
if wanted memcheck; then step memcheck 120 bash -c 'sanitize memcheck'; fi
if wanted racecheck; then step racecheck 120 bash -c 'sanitize racecheck'; fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}; logs are in $OUT"
  exit 1
fi
