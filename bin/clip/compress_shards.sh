#!/usr/bin/env bash
# CLIP: a large folder of images to one file, in shards. Settings: conf/experiment/compress_shards.yaml
experiment=compress_shards
description='CLIP: compresses a large folder of images in shards, each a job of its own, and merges their files:
  -a "shards.folder=photos shards.out=photos.bin shards.n=16"
Further settings: shards.labels=true (OUT.labels.npy: the folders directly below are classes), shards.model=b001|b005|b01,
shards.clip=FILE, shards.pretrained=FILE, shards.device, shards.batch_size, shards.n_workers. There are no tables to draw.'
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

settings=("mode=$mode" "slurm=$slurm" ${overrides[@]+"${overrides[@]}"})
$is_plot_only || "$python" -m utils.compress_shards "${settings[@]}" "job_id=$job_id" || keep_worst $?
