#!/usr/bin/env bash
# How depth matters: plain and residual networks of 8, 20 and 44 layers, their record and picture in docs/.
#
#   scripts/depth.sh DATA_DIR RUNS_DIR EPOCHS [FLAGS]
#   scripts/depth.sh ../shared/data/cifar10 runs/depth 5
#
# DATA_DIR holds labelled images, of which 10,000 train, read at 16 pixels; FLAGS are those of `toolkit finetune image`. Seeds
# 0 to 2, each with the better one of two learning rates on held-out images. Started again, it makes the runs that are missing.
set -euo pipefail
data=${1:?DATA_DIR} runs=${2:?RUNS_DIR} epochs=${3:?EPOCHS}
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
[ -d "$runs/data" ] || python "$scripts/convolution.py" subset "$data" "$runs/data"
for depth in 1 3 7; do
    for shortcuts in yes no; do
        python "$scripts/convolution.py" network $depth $shortcuts "$runs/networks/$depth-$shortcuts"
        for seed in 0 1 2; do
            "${toolkit[@]}" finetune image --encoder "scratch:$runs/networks/$depth-$shortcuts" --data "$runs/data" \
                --output_dir "$runs/$depth-$shortcuts-$seed" --seed $seed --num_train_epochs "$epochs" --batch_size 128 \
                --learning_rates 1e-3 3e-3 --augment flip shift --resume "${@:4}"
        done
    done
done
python "$scripts/convolution.py" depth docs/pictures/depth.png "$runs"/[0-9]*-*-[0-9] > docs/results/depth.json
