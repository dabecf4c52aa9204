#!/usr/bin/env bash
# The best part-of-speech tagger of an hour of pretraining: an ELMo, then five seeds on 500 sentences and on all.
#
#   scripts/best_tagger.sh CORPUS TREEBANK RUNS_DIR [MINUTES] [FLAGS…]
#   scripts/best_tagger.sh ../shared/data/text_corpus/train.txt ../shared/data/ud_english_ewt runs/best 60
#
# UD English EWT, universal tags, means of the seeds: 92.1% with 500 sentences, 95.7% with all. An hour of training, a
# minute and a half around it, then about an hour for the taggers, of which two ran at a time; two cores, float32.
# FLAGS go to the pretraining. Leaves docs/results/best_tagger_elmo.json, and best_tagger_500.json and best_tagger_all.json:
# the record of each seed and their means. Started again it goes on where it was stopped. On a processor without bfloat16
# set PRECISION= to nothing.
set -euo pipefail
corpus=${1:?CORPUS} treebank=${2:?TREEBANK} runs=${3:?RUNS_DIR} minutes=${4:-60}
toolkit=${TOOLKIT:-toolkit}
read -ra precision <<< "${PRECISION---bf16}"

$toolkit pretrain elmo --corpus "$corpus" --output_dir "$runs/elmo" --max_minutes "$minutes" --resume \
    "${precision[@]}" "${@:5}"
cp "$runs/elmo/results.json" docs/results/best_tagger_elmo.json
for size in 500 all; do
    limit=()
    if [ "$size" != all ]; then limit=(--train_size "$size"); fi
    for seed in 0 1 2 3 4; do
        $toolkit finetune pos --encoder "$runs/elmo" --data "$treebank" --output_dir "$runs/$size/seed$seed" --resume \
            --seed "$seed" --learning_rate 3e-3 "${precision[@]}" "${limit[@]}"
    done
    python "$(dirname "$0")"/join_records.py "$runs/$size"/seed?/results.json > "docs/results/best_tagger_$size.json"
done
