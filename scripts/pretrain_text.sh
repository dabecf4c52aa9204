#!/usr/bin/env bash
# Pretrain word2vec, ELMo and BERT on the same text, so many minutes each.
#
#   scripts/pretrain_text.sh CORPUS OUTPUT_DIR [MINUTES] [FLAGS…]
#   scripts/pretrain_text.sh sample runs/sample 1
#   TOOLKIT="torchrun --nproc_per_node 2 -m toolkit" scripts/pretrain_text.sh texts/ runs/texts 20
#   METHODS="word2vec fasttext" scripts/pretrain_text.sh texts/ runs/texts 20 --workers 8
#   METHODS="elmo bert" scripts/pretrain_text.sh texts/ runs/texts 20 --bf16
#
# FLAGS go to the command of every one of METHODS. word2vec and fasttext train for five epochs or the minutes, whichever
# ends first; under torchrun they train on the main process, in threads.
set -euo pipefail
corpus=${1:?CORPUS: a file, folder, glob, Hub id or sample} output=${2:?OUTPUT_DIR} minutes=${3:-20}
toolkit=${TOOLKIT:-toolkit}

for method in ${METHODS:-word2vec elmo bert}; do
    $toolkit pretrain "$method" --corpus "$corpus" --output_dir "$output/$method" --max_minutes "$minutes" "${@:4}"
done
