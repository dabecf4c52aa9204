#!/usr/bin/env bash
# Fine-tune pretrained encoders, and the same networks from scratch, as part-of-speech taggers, three seeds, and compare them.
#
#   scripts/transfer_pos.sh ENCODERS_DIR TREEBANK OUTPUT_DIR [FLAGS…]
#   scripts/transfer_pos.sh runs/sample sample runs/sample_pos --train_sizes 50 all
#
# ENCODERS_DIR is what pretrain_text.sh made: every folder in it with a config.json is compared.
set -euo pipefail
encoders=${1:?ENCODERS_DIR} treebank=${2:?TREEBANK: a folder with one file a split, or sample} output=${3:?OUTPUT_DIR}

mapfile -t folders < <(find "$encoders" -mindepth 2 -maxdepth 2 -name config.json -exec dirname {} \; | sort)
${TOOLKIT:-toolkit} compare --task pos --encoders "${folders[@]}" --data "$treebank" --output_dir "$output" "${@:4}"
