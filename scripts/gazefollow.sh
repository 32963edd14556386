#!/usr/bin/env bash
# From a folder with GazeFollow to a comparison of Gaze-LLE and HCLoRA, read from top to bottom.
#
#   scripts/gazefollow.sh /data/gazefollow_extended [dinov2_vitb14|dinov2_vitl14] [SEED]
#
# Hours on a GPU. Whatever was finished is not done again: kill it and repeat the command.
set -euo pipefail
cd "$(dirname "$0")/.."

ROOT=${1:?give the folder of gazefollow_extended}
BACKBONE=${2:-dinov2_vitb14}
SEED=${3:-0}
export OMP_WAIT_POLICY=passive PYTHONSAFEPATH=1
PATH="$PWD/.venv/bin:$PATH" # made by `make bench` or `make test`

# 1. Are the data the official ones? Counts, rows, a sample of the pictures.
gazebench data check gazefollow --dataset.root "$ROOT"

# 2. Floors that see no picture, and one human annotator against the others.
for method in center mean_target one_annotator; do
  gazebench bench "$method" gazefollow --dataset.root "$ROOT"
done

# 3. Two methods with equal budgets. Each `bench` trains (weights.pt), predicts for the test split
#    (predictions.parquet) and scores that file (record.json, scores.parquet).
for method in gazelle hclora; do
  gazebench bench "$method" gazefollow --dataset.root "$ROOT" --model.backbone "$BACKBONE" --seed "$SEED"
done

# 4. Scoring again needs no model: the same file gives the same digits.
run() { ls -td runs/gazefollow/"$1"/*/ | head -n 1; }
gazebench score "$(run hclora)predictions.parquet" gazefollow --dataset.root "$ROOT" --boards build/rescored

# 5. Who is better where, person by person, with paired intervals.
gazebench compare "$(run gazelle)" "$(run hclora)"

# 6. The board: open leaderboards/index.html in a browser.
make board
