#!/usr/bin/env bash
# What a GPU shows and no other machine can, in some minutes, on embedded data only.
#
#   scripts/gpu.sh [FOLDER]                                          runs, records and figures go to FOLDER (default: build/gpu)
#   METHODS=hclora ARGS="--trainer.max_epochs 1" scripts/gpu.sh      one method, one epoch
#
# Tests marked `gpu`; methods trained on `cuda` on the embedded world; the same weights scored on the CPU, which must
# give the same numbers but for rounding; and the benchmark that times a device.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${1:-build/gpu}
export OMP_WAIT_POLICY=passive PYTHONSAFEPATH=1
PATH="$PWD/.venv/bin:$PATH" # made by `make bench` or `make test`
mkdir -p "$OUT"

# 1. The device, and the tests that need one.
python3 -c 'import torch; print(torch.cuda.get_device_name(0), "torch", torch.__version__)' | tee "$OUT/device.txt"
python3 -m pytest -q -m gpu $(grep -l "mark.gpu" tests/test_*.py)

# 2. Train, predict, score on the GPU; then predict and score with the same weights on the CPU.
for method in ${METHODS:-gazelle hclora omnigf vl4gaze}; do
  SECONDS=0
  gazebench bench "$method" gazeworld --runs "$OUT/runs" --boards "$OUT/boards" --trainer.accelerator gpu \
    ${ARGS:-}
  echo "$method trained, predicted and scored on the GPU in $SECONDS s" | tee -a "$OUT/device.txt"
  run=$(ls -td "$OUT/runs/gazeworld/$method"/*/ | head -n 1)
  gazebench eval "${run}weights.pt" --runs "$OUT/runs-cpu" --boards "$OUT/boards-cpu" --trainer.accelerator cpu
done

# 3. How far the two devices are apart, person by person.
python3 - "$OUT" <<'PY' | tee -a "$OUT/device.txt"
import sys
from pathlib import Path

import numpy as np
import pandas as pd

out = Path(sys.argv[1])
for there in sorted((out / "runs").glob("gazeworld/*/*/predictions.parquet")):
    method = there.parts[-3]
    (here,) = (out / "runs-cpu").glob(f"gazeworld/{method}/*/predictions.parquet")
    gpu, cpu = (pd.read_parquet(path).set_index("person_id") for path in (there, here))
    gpu = gpu.loc[cpu.index]
    for name in ("x", "y", "inout"):
        if name in cpu:
            print(f"{method}: {name} on CPU and GPU differ by at most {np.abs(cpu[name] - gpu[name]).max():.2e}")
    if "heatmap" in cpu:
        apart = max(
            np.abs(np.frombuffer(a, "<f4") - np.frombuffer(b, "<f4")).max() if isinstance(a, bytes)
            else np.abs(np.asarray(a) - np.asarray(b)).max()
            for a, b in zip(cpu["heatmap"], gpu["heatmap"], strict=True)
        )
        print(f"{method}: heatmaps on CPU and GPU differ by at most {apart:.2e}")
PY

# 4. Times of the backbones.
python3 benchmarks/backbone.py --device cuda | tee "$OUT/backbone.txt"
