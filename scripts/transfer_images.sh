#!/usr/bin/env bash
# Fine-tune pretrained encoders, and the same networks from scratch, as image classifiers, three seeds, and compare them.
#
#   scripts/transfer_images.sh ENCODERS_DIR IMAGES OUTPUT_DIR [FLAGS…]
#   scripts/transfer_images.sh runs/digits sample runs/digits_again --train_sizes 5 all --per_class --baseline
#
# ENCODERS_DIR is what pretrain_images.sh made: every folder in it with a config.json is compared.
set -euo pipefail
encoders=${1:?ENCODERS_DIR} images=${2:?IMAGES: class folders, a table, a Hub id or sample} output=${3:?OUTPUT_DIR}

mapfile -t folders < <(find "$encoders" -mindepth 2 -maxdepth 2 -name config.json -exec dirname {} \; | sort)
${TOOLKIT:-toolkit} compare --task image --encoders "${folders[@]}" --data "$images" --output_dir "$output" "${@:4}"
