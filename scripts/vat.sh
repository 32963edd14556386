#!/usr/bin/env bash
# VideoAttentionTarget after GazeFollow: fine-tunes the weights that scripts/gazefollow.sh trained, and compares.
#
#   scripts/vat.sh /data/videoattentiontarget [dinov2_vitb14|dinov2_vitl14] [SEED]
#
# Hours on a GPU. Whatever was finished is not done again: kill it and repeat the command.
set -euo pipefail
cd "$(dirname "$0")/.."

ROOT=${1:?give the folder of VideoAttentionTarget}
BACKBONE=${2:-dinov2_vitb14}
SEED=${3:-0}
export OMP_WAIT_POLICY=passive PYTHONSAFEPATH=1
PATH="$PWD/.venv/bin:$PATH" # made by `make bench` or `make test`

# 1. Are the data the official ones?
gazebench data check vat --dataset.root "$ROOT"

# 2. Floors that see no picture. One annotator against the rest needs several annotators, which this set has not.
for method in center mean_target; do
  gazebench bench "$method" vat --dataset.root "$ROOT"
done

# 3. Train, predict, score. The recipes start from the newest GazeFollow run of the same model (`init from:gazefollow`).
for method in gazelle hclora; do
  gazebench bench "$method" vat --dataset.root "$ROOT" --model.backbone "$BACKBONE" --seed "$SEED"
done

# 4. Who is better where, and the board: open leaderboards/index.html in a browser.
run() { ls -td runs/vat/"$1"/*/ | head -n 1; }
gazebench compare "$(run gazelle)" "$(run hclora)"
make board
