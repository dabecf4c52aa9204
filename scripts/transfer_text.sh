#!/usr/bin/env bash
# Fine-tune pretrained encoders, and the same networks from scratch, as text classifiers, three seeds, and compare them.
#
#   scripts/transfer_text.sh ENCODERS_DIR TEXTS OUTPUT_DIR [FLAGS…]
#   scripts/transfer_text.sh runs/sample sample runs/sample_text --train_sizes 5 all --per_class --baseline
#
# ENCODERS_DIR is what pretrain_text.sh made: every folder in it with a config.json is compared.
set -euo pipefail
encoders=${1:?ENCODERS_DIR} texts=${2:?TEXTS: a file, a folder with one file a split, or sample} output=${3:?OUTPUT_DIR}

mapfile -t folders < <(find "$encoders" -mindepth 2 -maxdepth 2 -name config.json -exec dirname {} \; | sort)
${TOOLKIT:-toolkit} compare --task text --encoders "${folders[@]}" --data "$texts" --output_dir "$output" "${@:4}"
