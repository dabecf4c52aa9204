#!/usr/bin/env bash
# Grapheme to phoneme and inflection: the recipes of docs/sequences.md, with the figures that they are to reach.
#
#   scripts/seq2seq_figures.sh g2p DATA RUNS_DIR [FLAGS…]
#   scripts/seq2seq_figures.sh inflection DATA RUNS_DIR [FLAGS…]
#
# g2p: no attention, additive and multiplicative attention and a Transformer, 30 minutes each on two cores, without stress,
# and additive attention with stress. inflection: Finnish, Spanish and Turkish, ten minutes each, three seeds. DATA is a
# folder with the columns word and phonemes, or lemma, tags, form and language. Started again, it makes the runs that are missing.
set -euo pipefail
kind=${1:?g2p or inflection} data=${2:?DATA} runs=${3:?RUNS_DIR}
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
train() { # NAME FLAGS…
    "${toolkit[@]}" finetune seq2seq --data "$data" --output_dir "$runs/$1" --label_smoothing 0.1 --resume "${@:2}"
}

case $kind in
g2p)
    pronounce=(--target_units words --max_minutes 30 --batch_size 128)
    for attention in additive none multiplicative; do
        train "g2p-$attention" "${pronounce[@]}" --encoder scratch:lstm-mini --attention $attention --dropout 0.3 \
            --remove '[012]' "${@:4}"
    done
    train g2p-transformer "${pronounce[@]}" --encoder scratch:bert-mini --decoder transformer --learning_rate 1e-3 \
        --remove '[012]' "${@:4}"
    train g2p-stress "${pronounce[@]}" --encoder scratch:lstm-mini --dropout 0.3 "${@:4}"
    ;;
inflection)
    for language in finnish spanish turkish; do
        for seed in 0 1 2; do
            train "$language-$seed" --feature_columns tags --where "language=$language" --encoder scratch:lstm-mini \
                --dropout 0.3 --max_minutes 10 --seed $seed "${@:4}"
        done
    done
    ;;
*)
    echo "$kind: expected g2p or inflection" >&2
    exit 2
    ;;
esac
