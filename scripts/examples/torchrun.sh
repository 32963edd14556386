#!/usr/bin/env bash
# One machine with several GPUs, started by torchrun; the record is that of a single process.
#
#   scripts/examples/torchrun.sh 8 hclora gazefollow --dataset.root=/data/gazefollow_extended
#
# Several machines: add torchrun's --nnodes, --node_rank and --rdzv_endpoint, and --trainer.num_nodes here.
set -euo pipefail
DEVICES=${1:?give the number of processes}
shift
export OMP_WAIT_POLICY=passive PYTHONSAFEPATH=1
exec "${TORCHRUN:-torchrun}" --nproc_per_node="$DEVICES" -m gazebench.cli.main bench "$@" --trainer.devices="$DEVICES" --trainer.strategy=ddp
