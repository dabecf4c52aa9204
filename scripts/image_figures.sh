#!/usr/bin/env bash
# Make the figures of record on images, a step at a time, and leave their records in docs/results/.
#
#   scripts/image_figures.sh DATA_DIR MODELS_DIR RUNS_DIR STEP
#   scripts/image_figures.sh ../shared/data ../shared/models runs/images cifar10
#   for step in cifar10 pretrain digits x_rays_imagenet x_rays_cifar10; do
#       scripts/image_figures.sh ../shared/data ../shared/models runs/images $step
#   done
#
# STEP cifar10: from nothing, ten minutes, beside transformers' Trainer, on an idle machine. pretrain: a resnet-fast on
# CIFAR-10, ten minutes. digits: the sample, five seeds. x_rays_…: what pretraining buys on DATA_DIR/chest_xray, with a
# network of ImageNet in MODELS_DIR, and with the one of the step pretrain. Started again, a step goes on where it was
# stopped.
set -euo pipefail
data=${1:?DATA_DIR} models=${2:?MODELS_DIR} runs=${3:?RUNS_DIR}
step=${4:?STEP: cifar10, pretrain, digits, x_rays_imagenet or x_rays_cifar10}
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
read -ra fast < <(python "$scripts/bench_images.py" recipe)

x_rays() {  # ENCODER SEEDS FLAGS…: 1%, 10% and all of the labels
    "${toolkit[@]}" compare --task image --figure roc_auc --encoders "$1" --data "$data/chest_xray" \
        --train_sizes 47 471 all --seeds "$2" --output_dir "$runs/$step" --resume "${@:3}"
    cp "$runs/$step/results.json" "docs/results/$step.json"
}

case $step in
    cifar10) python "$scripts/bench_images.py" "$data/cifar10" "$runs/cifar10" ;;
    pretrain)
        "${toolkit[@]}" pretrain resnet --corpus "$data/cifar10" --preset resnet-fast --output_dir "$runs/resnet-fast" \
            --max_minutes 10 --augment flip shift --image_size_start 24 --resume "${fast[@]}"
        cp "$runs/resnet-fast/results.json" docs/results/pretrain_resnet.json
        ;;
    digits)
        for seed in 0 1 2 3 4; do
            "${toolkit[@]}" finetune image --encoder scratch:resnet-fast --data sample --output_dir "$runs/digits/seed$seed" \
                --seed "$seed" --image_size 16 --num_train_epochs 30 --augment shift rotate --resume "${fast[@]}"
        done
        python "$scripts/join_records.py" "$runs"/digits/seed?/results.json > docs/results/digits.json
        ;;
    x_rays_imagenet) x_rays "$models/efficientnet_lite0_imagenet" 5 --image_size 96 ;;
    x_rays_cifar10) x_rays "$runs/resnet-fast" 5 --image_size 32 ;;
    *) echo "unknown STEP '$step'" >&2; exit 2 ;;
esac
