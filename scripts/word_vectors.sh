#!/usr/bin/env bash
# Pretrain word2vec, or what METHOD says, with three seeds and score its vectors on analogies and word similarity, as
# gensim does.
#
#   scripts/word_vectors.sh CORPUS OUTPUT_DIR [FLAGS…]
#   scripts/word_vectors.sh sample runs/word_vectors --num_train_epochs 1
#   METHOD=fasttext scripts/word_vectors.sh sample runs/word_vectors
#
# Leaves OUTPUT_DIR/seed0 to seed2, in each the encoder and analogies.json, simlex999.json and wordsim353.json.
set -euo pipefail
corpus=${1:?CORPUS: a file, folder, glob, Hub id or sample} output=${2:?OUTPUT_DIR}
toolkit=${TOOLKIT:-toolkit}

for seed in 0 1 2; do
    folder=$output/seed$seed
    $toolkit pretrain "${METHOD:-word2vec}" --corpus "$corpus" --output_dir "$folder" --do_lower_case --seed "$seed" "${@:3}"
    for words in analogies simlex999 wordsim353; do
        $toolkit score "$folder" --data "$words" --output_file "$folder/$words.json"
    done
done
