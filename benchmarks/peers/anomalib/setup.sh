#!/bin/sh
# Makes the peer's environment: anomalib 2.7.0 with CPU torch, apart from ours because the two pin different things.
#   sh benchmarks/peers/anomalib/setup.sh VENV
# Torch goes first and alone: whatever CPU wheel pip is configured to find wins, and the CUDA libraries that PyPI's
# torch asks for (gigabytes) stay away. Online, the CPU wheel is at
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
set -eu
venv=${1:?"usage: setup.sh VENV"}
here=$(dirname "$0")
python3 -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"
$pip --no-deps torch==2.13.0 torchvision==0.28.0
$pip -c "$here/constraints.txt" -r "$here/requirements.txt"
"$venv/bin/python" "$here/worker.py" --check
