#!/usr/bin/env bash
# Pretrain image encoders on the same labelled images, so many minutes each.
#
#   scripts/pretrain_images.sh CORPUS OUTPUT_DIR [MINUTES] [FLAGS…]
#   scripts/pretrain_images.sh sample runs/digits 1 --image_size 16
#   METHODS=resnet scripts/pretrain_images.sh ../shared/data/cifar10 runs/cifar 10 --augment flip shift
#
# FLAGS go to the command of every one of METHODS, which are resnet and vit unless they are said.
set -euo pipefail
corpus=${1:?CORPUS: a folder of class folders, a table, a Hub id or sample} output=${2:?OUTPUT_DIR} minutes=${3:-10}
toolkit=${TOOLKIT:-toolkit}

for method in ${METHODS:-resnet vit}; do
    $toolkit pretrain "$method" --corpus "$corpus" --output_dir "$output/$method" --max_minutes "$minutes" "${@:4}"
done
