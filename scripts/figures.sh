#!/usr/bin/env bash
# Make the figures of record again, a step at a time, and leave their records in docs/results/.
#
#   scripts/figures.sh DATA_DIR RUNS_DIR STEP [ENCODER]
#   scripts/figures.sh ../shared/data runs/figures pretrain
#   scripts/figures.sh ../shared/data runs/figures ewt elmo
#   for step in pretrain words ewt brown trec sentence_polarity; do scripts/figures.sh ../shared/data runs/figures $step; done
#
# STEP pretrain: word2vec, ELMo and BERT on DATA_DIR/text_corpus, 20 minutes each at most, on an idle machine.
# STEP words: word2vec with three seeds on analogies and word similarity.
# The others compare each encoder, or the one that is named, with the same network from scratch on a data set. Started again, a step goes
# on where it was stopped. On a processor without bfloat16 set PRECISION= to nothing.
set -euo pipefail
data=${1:?DATA_DIR} runs=${2:?RUNS_DIR} step=${3:?STEP: pretrain, words, ewt, brown, trec or sentence_polarity}
encoders=${4:-word2vec elmo bert}
scripts=$(dirname "$0")
export TOOLKIT=${TOOLKIT:-toolkit}
read -ra precision <<< "${PRECISION---bf16}"
read -ra toolkit <<< "$TOOLKIT"

compare() {  # ENCODER FLAGS…: its learning rates, one comparison, one record
    local rates=(3e-3 1e-2) output=$runs/${step}_$1
    case $1 in bert | electra) rates=(3e-4 1e-3) ;; esac
    if [ "$step" = brown ]; then rates=("${rates[0]}"); fi  # what EWT chose; a run on Brown takes long
    "${toolkit[@]}" compare --encoders "$runs/$1" --learning_rates "${rates[@]}" --output_dir "$output" --resume \
        "${precision[@]}" "${@:2}"
    cp "$output/results.json" "docs/results/${step}_$1.json"
}

pretrain() {  # ENCODER FLAGS…
    METHODS=$1 "$scripts"/pretrain_text.sh "$data/text_corpus/train.txt" "$runs" 20 \
        --validation_corpus "$data/text_corpus/validation.txt" "${@:2}"
}

for encoder in $encoders; do
    case $step/$encoder in
        pretrain/word2vec) pretrain word2vec ;;
        # word2vec, which their embeddings start from, takes less than the twentieth minute
        pretrain/bert) pretrain bert "${precision[@]}" --max_minutes 19 --batch_size 16 --learning_rate 2e-3 ;;
        pretrain/electra) pretrain electra "${precision[@]}" --max_minutes 19 --batch_size 16 ;;
        pretrain/*) pretrain "$encoder" "${precision[@]}" ;;
        words/word2vec)
            "$scripts"/word_vectors.sh "$data/text_corpus/train.txt" "$runs/words"
            python "$scripts"/join_records.py "$runs"/words/seed?/{analogies,simlex999,wordsim353}.json > docs/results/words_word2vec.json
            ;;
        words/*) ;;
        ewt/electra) compare "$encoder" --task pos --data "$data/ud_english_ewt" --train_sizes 100 500 ;;
        ewt/*) compare "$encoder" --task pos --data "$data/ud_english_ewt" --train_sizes 100 500 2000 all ;;
        brown/*) compare "$encoder" --task pos --data "$data/brown" --train_sizes all --num_train_epochs 2 --baseline ;;
        trec/* | sentence_polarity/*)
            compare "$encoder" --task text --data "$data/$step" --train_sizes 10 100 all --per_class --baseline ;;
        *) echo "unknown STEP '$step'" >&2; exit 2 ;;
    esac
done
