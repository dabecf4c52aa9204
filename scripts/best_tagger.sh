#!/usr/bin/env bash
# The best part-of-speech tagger of an hour of pretraining: an ELMo, then five seeds on 500 sentences and on all.
#
#   scripts/best_tagger.sh CORPUS TREEBANK RUNS_DIR [MINUTES] [FLAGS…]
#   scripts/best_tagger.sh ../shared/data/text_corpus/train.txt ../shared/data/ud_english_ewt runs/best 60
#
# FLAGS go to the pretraining. Leaves docs/results/best_tagger_500.json and best_tagger_all.json: the record of each seed
# and their means. Started again it goes on where it was stopped. On a processor without bfloat16 set PRECISION= to nothing.
set -euo pipefail
corpus=${1:?CORPUS} treebank=${2:?TREEBANK} runs=${3:?RUNS_DIR} minutes=${4:-60}
toolkit=${TOOLKIT:-toolkit}
read -ra precision <<< "${PRECISION---bf16}"

$toolkit pretrain elmo --corpus "$corpus" --output_dir "$runs/elmo" --max_minutes "$minutes" --resume \
    "${precision[@]}" "${@:5}"
for size in 500 all; do
    limit=()
    if [ "$size" != all ]; then limit=(--train_size "$size"); fi
    for seed in 0 1 2 3 4; do
        $toolkit finetune pos --encoder "$runs/elmo" --data "$treebank" --output_dir "$runs/$size/seed$seed" --resume \
            --seed "$seed" --learning_rate 3e-3 "${precision[@]}" "${limit[@]}"
    done
    python "$(dirname "$0")"/join_records.py "$runs/$size"/seed?/results.json > "docs/results/best_tagger_$size.json"
done
