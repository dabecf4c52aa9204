#!/usr/bin/env bash
# Make the figures of record on images, a step at a time, and leave their records in docs/results/.
#
#   scripts/image_figures.sh DATA_DIR MODELS_DIR RUNS_DIR STEP
#   scripts/image_figures.sh ../shared/data ../shared/models runs/images cifar10
#   for step in cifar10 pretrain digits x_rays_imagenet x_rays_cifar10 x_rays_frozen unlabelled explanations; do
#       scripts/image_figures.sh ../shared/data ../shared/models runs/images $step
#   done
#
# STEP cifar10: from nothing, ten minutes, beside transformers' Trainer, on an idle machine. pretrain: a resnet-fast on
# CIFAR-10, ten minutes. digits: the sample, five seeds. x_rays_…: what pretraining buys on DATA_DIR/chest_xray, with a
# network of ImageNet in MODELS_DIR, and with the one of the step pretrain, and what their features buy as they are.
# unlabelled: what CIFAR-10 without labels buys where 1% of them are known. explanations: whether the maps of `toolkit
# explain` show what counts, for the network of the step pretrain and for a vision transformer.
# Started again, a step goes on where it was stopped.
set -euo pipefail
data=${1:?DATA_DIR} models=${2:?MODELS_DIR} runs=${3:?RUNS_DIR}
step=${4:?STEP: cifar10, pretrain, digits, x_rays_imagenet, x_rays_cifar10, x_rays_frozen, unlabelled or explanations}
imagenet=$models/efficientnet_lite0_imagenet
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
read -ra fast < <(python "$scripts/bench_images.py" recipe)

sizes="47 471 all"  # 1%, 10% and 100% of the labelled X-rays

x_rays() {  # RECORD ENCODER IMAGE_SIZE SEEDS SIZES FLAGS…: the whole network learns, beside the same with new weights
    "${toolkit[@]}" compare --task image --figure roc_auc --encoders "$2" --data "$data/chest_xray" --image_size "$3" \
        --train_sizes $5 --seeds "$4" --augment shift rotate --class_weights --layerwise_lr_decay 1 --head_warmup_ratio 0 \
        --output_dir "$runs/$step" --resume "${@:6}"
    cp "$runs/$step/results.json" "docs/results/$1.json"
}

frozen() {  # NAME ENCODER IMAGE_SIZE: its features as they are, under a head fitted by logistic regression
    for size in $sizes; do
        budget=(); [ "$size" = all ] || budget=(--train_size "$size")
        "${toolkit[@]}" finetune image --freeze --figure roc_auc --encoder "$2" --data "$data/chest_xray" \
            --image_size "$3" "${budget[@]}" --output_dir "$runs/x_rays_frozen/$1-$size" --resume
    done
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
    x_rays_imagenet)
        x_rays x_rays_imagenet_few "$imagenet" 64 3 "47 471" --baseline
        x_rays x_rays_imagenet "$imagenet" 64 5 all --baseline
        ;;
    x_rays_cifar10) x_rays x_rays_cifar10 "$runs/resnet-fast" 32 5 "$sizes" ;;
    x_rays_frozen)
        frozen imagenet "$imagenet" 64
        frozen imagenet-random "scratch:$imagenet" 64
        frozen cifar10 "$runs/resnet-fast" 32
        frozen cifar10-random "scratch:$runs/resnet-fast" 32
        python "$scripts/join_records.py" "$runs"/x_rays_frozen/*/results.json > docs/results/x_rays_frozen.json
        pairs=()
        for name in imagenet cifar10; do
            for size in $sizes; do pairs+=("$runs/x_rays_frozen/$name-"{,random-}"$size"); done
        done
        python "$scripts/paired_gains.py" roc_auc "${pairs[@]}" > docs/results/x_rays_frozen_gains.json
        ;;
    unlabelled)
        "${toolkit[@]}" pretrain simclr --corpus "$data/cifar10" --output_dir "$runs/simclr" --max_minutes 30 \
            --batch_size 512 --optim muon --learning_rate 2e-2 --temperature 0.2 --image_size 24 --resume
        "${toolkit[@]}" compare --task image --encoders "$runs/simclr" --data "$data/cifar10" --train_sizes 50 --per_class \
            --subset_each_seed --freeze --seeds 5 --augment flip shift --output_dir "$runs/$step" --resume
        cp "$runs/$step/results.json" "docs/results/$step.json"
        ;;
    explanations)
        "${toolkit[@]}" finetune image --encoder scratch:vit-tiny --data "$data/cifar10" --output_dir "$runs/vit" \
            --num_train_epochs 3 --batch_size 128 --optim muon --learning_rate 5e-3 --augment flip shift --resume
        python "$scripts/check_explanations.py" "$runs/resnet-fast" "$data/cifar10" docs/results/explanations.json
        python "$scripts/check_explanations.py" "$runs/vit" "$data/cifar10" docs/results/explanations_vit.json
        ;;
    *) echo "unknown STEP '$step'" >&2; exit 2 ;;
esac
