#!/usr/bin/env bash
# Pretrain the encoders that come with the page, and measure them on classes that they have not learned.
#
#   scripts/app_encoders.sh DATA_DIR RUNS_DIR ENCODERS_DIR
#   scripts/app_encoders.sh ../shared/data runs/app_encoders toolkit/app/encoders
#   MINUTES=1 RECORDINGS=10 EPISODES=100 SEEDS=1 scripts/app_encoders.sh ../shared/data runs/trial runs/trial/encoders
#
# image: labels of scripts/make_surrogate_images.py. audio: frequent words, which scripts/make_spoken_words.py lets a
# synthesizer say. text: fastText on the sample. The digits 5 to 9, written and spoken, are kept for the figures. The
# encoders go to ENCODERS_DIR, in half precision, and the figures to docs/results/. Started again, the script makes only
# the missing runs.
set -euo pipefail
data=${1:?DATA_DIR: the folder of fsdd, banking77 and cifar10} runs=${2:?RUNS_DIR} encoders=${3:?ENCODERS_DIR}
scripts=$(dirname "$0") seeds=${SEEDS:-3}
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
training=(--optim muon --learning_rate 1.2e-2 --label_smoothing 0.1 --max_minutes "${MINUTES:-10}" --resume)

made() { # NAME SCRIPT ARGUMENTS…
    [ -d "$runs/$1" ] || { python "$scripts/$2" "$runs/$1.part" "${@:3}" && mv "$runs/$1.part" "$runs/$1"; }
}

made images make_surrogate_images.py
made recordings make_spoken_words.py "${RECORDINGS:-40}"
"${toolkit[@]}" pretrain resnet --corpus "$runs/images" --preset resnet-fast-mini --image_size 32 --batch_size 256 \
    --augment flip shift zoom color "${training[@]}" --output_dir "$runs/image"
"${toolkit[@]}" finetune audio --encoder scratch:resnet-fast-mini --data "$runs/recordings" --image_size 48 \
    --trim_silence --max_seconds 1 --batch_size 64 --augment shift speed noise mask mixup "${training[@]}" \
    --output_dir "$runs/audio"
[ -e "$runs/text/results.json" ] ||
    "${toolkit[@]}" pretrain fasttext --corpus sample --preset fasttext-tiny --vocab_size 4517 --num_buckets 3200 \
        --num_train_epochs "${EPOCHS:-60}" --workers 1 --output_dir "$runs/text"
for kind in image audio text; do
    python "$scripts/save_half.py" "$runs/$kind" "$encoders/$kind"
done

evaluate() { # NAME ENCODER FLAGS…
    for ((seed = 0; seed < seeds; seed++)); do
        [ -e "$runs/$1/$seed/results.json" ] ||
            "${toolkit[@]}" fewshot evaluate --encoder "$2" --ways 5 --shots 10 --method linear "${@:3}" \
                --episodes "${EPISODES:-1000}" --seed $seed --output_dir "$runs/$1/$seed"
    done
    python "$scripts/join_records.py" "$runs/$1"/*/results.json > "docs/results/app_$1.json"
}

for weights in "" scratch:; do
    name=${weights:+_random}
    evaluate "digits$name" "$weights$encoders/image" --data sample --split test --labels 5 6 7 8 9
    evaluate "photographs$name" "$weights$encoders/image" --data "$data/cifar10" --split test
    evaluate "spoken$name" "$weights$encoders/audio" --data "$data/fsdd" --split test --labels 5 6 7 8 9
    evaluate "texts$name" "$weights$encoders/text" --data "$data/banking77" --split test
done
