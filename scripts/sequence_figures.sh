#!/usr/bin/env bash
# The runs behind docs/sequences.md; scripts/sequences.py makes its pictures and records from them.
#
#   scripts/sequence_figures.sh distance RUNS_DIR
#   scripts/sequence_figures.sh agreement TREEBANK RUNS_DIR
#   scripts/sequence_figures.sh tagging TREEBANK CORPUS_DIR RUNS_DIR [FLAGS…]
#   scripts/sequence_figures.sh g2p DATA RUNS_DIR [FLAGS…]
#   scripts/sequence_figures.sh inflection DATA RUNS_DIR [FLAGS…]
#
# distance: small taggers on synthetic sentences. agreement: the same on real ones. tagging: recurrent networks of one
# and of two directions, pretrained 20 minutes each, then compared with 500 and with all sentences. g2p: decoders without
# attention, with additive and multiplicative attention, and a Transformer, 30 minutes each, without stress, one with
# stress, and Phonetisaurus. inflection: Finnish, Spanish and Turkish, ten minutes each, three seeds. FLAGS, such as --bf16,
# are those of toolkit finetune. TOOLKIT is the command, by default toolkit; on one core of two it is: env OMP_NUM_THREADS=1
# toolkit. When started again, the script makes only the missing runs; Phonetisaurus is trained again.
set -euo pipefail
kind=${1:?KIND: distance, agreement, tagging, g2p or inflection}
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"

by_distance() { # RUNS FLAGS…: taggers of RUNS/data, and the accuracy by distance in RUNS/distance.png and .json
    local runs=$1 curves=()
    for cell in rnn gru lstm; do
        for seed in 0 1 2; do
            "${toolkit[@]}" finetune pos --encoder "scratch:$cell-tiny" --data "$runs/data" --seed $seed \
                --learning_rates 1e-3 3e-3 --output_dir "$runs/$cell-$seed" --resume "${@:2}"
        done
        curves+=("${cell^^}=$runs/$cell-0,$runs/$cell-1,$runs/$cell-2")
    done
    python "$scripts/sequences.py" by_distance "$runs/data" "$runs/distance.png" "${curves[@]}" > "$runs/distance.json"
}

case $kind in
distance)
    runs=${2:?RUNS_DIR}
    for longest in 32 96; do
        [ -d "$runs/$longest/data" ] || python "$scripts/sequences.py" synthetic $longest "$runs/$longest/data"
        by_distance "$runs/$longest" --max_steps 1500
    done
    ;;
agreement)
    treebank=${2:?TREEBANK} runs=${3:?RUNS_DIR}
    [ -d "$runs/data" ] || python "$scripts/sequences.py" agreement "$treebank" "$runs/data"
    by_distance "$runs" --num_train_epochs 8 --word_dropout 0.1
    ;;
tagging)
    treebank=${2:?TREEBANK} corpus=${3:?CORPUS_DIR} runs=${4:?RUNS_DIR}
    for cell in rnn gru lstm; do
        for directions in 1 2; do
            "${toolkit[@]}" pretrain rnn --preset "$cell-mini" --num_directions $directions --corpus "$corpus/train.txt" \
                --validation_corpus "$corpus/validation.txt" --max_minutes 20 --output_dir "$runs/$cell-$directions" \
                --resume "${@:5}"
        done
    done
    compare() { # NAME FLAGS…
        "${toolkit[@]}" compare --encoders "$runs"/{rnn,gru,lstm}-{1,2} --data "$treebank" --num_proc 2 \
            --output_dir "$runs/$1" --resume "${@:2}"
    }
    compare 500 --train_sizes 500 --seeds 3 --learning_rates 1e-3 3e-3 1e-2 "${@:5}"
    compare all --train_sizes all --seeds 2 --learning_rates 3e-3 1e-2 --num_train_epochs 3 "${@:5}"
    for budget in 500 all; do
        python "$scripts/paired_encoders.py" "$runs/$budget/results.json" rnn-2:rnn-1 gru-2:gru-1 lstm-2:lstm-1 \
            lstm-1:rnn-1 lstm-2:rnn-2 lstm-2:gru-2 > "$runs/$budget/pairs.json"
    done
    python "$scripts/sequences.py" by_tag "$runs/500/results.json" "$runs/tags.png" lstm-2 lstm-1 > "$runs/tags.json"
    ;;
g2p)
    data=${2:?DATA} runs=${3:?RUNS_DIR} flags=("${@:4}")
    train() { # NAME FLAGS…
        "${toolkit[@]}" finetune seq2seq --data "$data" --target_units words --max_minutes 30 --batch_size 128 \
            --label_smoothing 0.1 --output_dir "$runs/$1" --resume "${flags[@]}" "${@:2}"
    }
    for attention in additive none multiplicative; do
        train $attention --encoder scratch:lstm-mini --attention $attention --dropout 0.3 --remove '[012]'
    done
    train transformer --encoder scratch:bert-mini --decoder transformer --learning_rate 1e-3 --remove '[012]'
    train stress --encoder scratch:lstm-mini --attention multiplicative --dropout 0.3
    python "$scripts/bench_g2p.py" "$data" "$runs/phonetisaurus"
    python "$scripts/sequences.py" by_length "$runs/length.png" \
        "no attention=$runs/none" "additive=$runs/additive" "multiplicative=$runs/multiplicative" \
        "Transformer=$runs/transformer" "Phonetisaurus=$runs/phonetisaurus" > "$runs/length.json"
    ;;
inflection)
    data=${2:?DATA} runs=${3:?RUNS_DIR}
    for language in finnish spanish turkish; do
        for seed in 0 1 2; do
            "${toolkit[@]}" finetune seq2seq --data "$data" --feature_columns tags --where "language=$language" \
                --encoder scratch:lstm-mini --dropout 0.3 --label_smoothing 0.1 --max_minutes 10 --seed $seed \
                --output_dir "$runs/$language-$seed" --resume "${@:4}"
        done
    done
    ;;
*)
    echo "$kind: expected distance, agreement, tagging, g2p or inflection" >&2
    exit 2
    ;;
esac
