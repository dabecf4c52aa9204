#!/usr/bin/env bash
# Pretrain the encoders that come with the page, on what the package and its dependencies install.
#
#   scripts/app_encoders.sh RUNS_DIR
#
# image: labels of scripts/make_surrogate_images.py. audio: the spoken digits 0 to 4 of the sample. text: word2vec on the
# sample. The digits 5 to 9, written and spoken, are kept for tests. The encoders go to toolkit/app/encoders/, in half
# precision. Started again, the script makes only the missing runs.
set -euo pipefail
runs=${1:?RUNS_DIR}
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"

[ -d "$runs/images" ] || python "$scripts/make_surrogate_images.py" "$runs/images"
"${toolkit[@]}" pretrain resnet --corpus "$runs/images" --preset resnet-fast-mini --image_size 32 --max_minutes 10 \
    --augment flip shift zoom color --optim muon --learning_rate 1.2e-2 --batch_size 256 --label_smoothing 0.1 \
    --output_dir "$runs/image" --resume
"${toolkit[@]}" finetune audio --encoder scratch:resnet-fast-mini --data sample --labels 0 1 2 3 4 \
    --image_size 48 --trim_silence --max_seconds 1 --max_minutes 5 --augment shift speed noise mask mixup --optim muon --learning_rate 1.2e-2 \
    --batch_size 64 --label_smoothing 0.1 --output_dir "$runs/audio" --resume
"${toolkit[@]}" pretrain word2vec --corpus sample --preset word2vec-tiny --num_train_epochs 20 --output_dir "$runs/text" --resume
for kind in image audio text; do
    python "$scripts/save_half.py" "$runs/$kind" "toolkit/app/encoders/$kind"
done
