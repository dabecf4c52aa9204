#!/usr/bin/env bash
# Make the figures of docs/audio.md, a step at a time, and leave their records in docs/results/.
#
#   scripts/audio_figures.sh DATA_DIR MODELS_DIR RUNS_DIR STEP [FLAGS…]
#   scripts/audio_figures.sh ../shared/data ../shared/models runs/audio speakers --bf16
#   for step in digits speakers commands pretrain transfer both_ways unseen; do
#       scripts/audio_figures.sh ../shared/data ../shared/models runs/audio $step
#   done
#
# digits: the split of DATA_DIR/fsdd, three seeds, five minutes each. speakers: the same, tested on each of the six speakers
# in turn, three seeds, three minutes each, with filters, and few-shot classification of these speakers. commands:
# DATA_DIR/arabic_speech_commands, three seeds, five minutes each.
# pretrain: the networks that the next steps start from. transfer: what they buy for the Arabic commands. both_ways: digits
# for commands and commands for digits. unseen: few-shot classification of digits by a network that has learned
# commands. FLAGS, such as --bf16, are those of finetune, pretrain and compare. SEEDS are "0 1 2" and SPEAKERS all six
# unless set. TOOLKIT is the command, by default toolkit; on one core of two it is: env OMP_NUM_THREADS=1 toolkit. Started
# again, a step makes only the missing runs.
set -euo pipefail
data=${1:?DATA_DIR} models=${2:?MODELS_DIR} runs=${3:?RUNS_DIR}
step=${4:?STEP: digits, speakers, commands, pretrain, transfer, both_ways or unseen}
flags=("${@:5}")
scripts=$(dirname "$0")
read -ra toolkit <<< "${TOOLKIT:-toolkit}"
read -ra seeds <<< "${SEEDS:-0 1 2}"
read -ra speakers <<< "${SPEAKERS:-george jackson lucas nicolas theo yweweler}"
digits=$data/fsdd commands=$data/arabic_speech_commands
recipe=(--optim muon --learning_rate 1.2e-2 --batch_size 64 --label_smoothing 0.1 --augment shift speed noise mask mixup
    --image_size 48)

learn() { # DATA FOLDER MINUTES FLAGS…: a classifier of recordings, from new weights
    "${toolkit[@]}" finetune audio --encoder scratch:resnet-fast --data "$1" --output_dir "$2" --max_minutes "$3" --resume \
        "${recipe[@]}" "${flags[@]}" "${@:4}"
}

few_shot() { # NAME ENCODER FLAGS…: ten classes by one and by five examples of each
    for shots in 1 5; do
        [ -e "$runs/$1-$shots/results.json" ] || "${toolkit[@]}" fewshot evaluate --encoder "$2" --data "$digits" \
            --split train --ways 10 --shots $shots --within speaker --output_dir "$runs/$1-$shots" "${@:3}"
    done
}

record() { # NAME FOLDER…: the records of runs, joined
    python "$scripts/join_records.py" "${@:2}" > "docs/results/$1.json"
}

gains() { # RECORD DATA ENCODER… -- SIZE…: what pretrained encoders buy
    local encoders=() name=$1 source=$2
    shift 2
    while [ "$1" != -- ]; do encoders+=("$1"); shift; done
    "${toolkit[@]}" compare --task audio --encoders "${encoders[@]}" --data "$source" --train_sizes "${@:2}" --per_class \
        --subset_each_seed --seeds ${#seeds[@]} --image_size 48 --optim muon --learning_rates 1.2e-2 --max_steps 150 --baseline \
        --output_dir "$runs/$name" --resume "${flags[@]}"
    cp "$runs/$name/results.json" "docs/results/audio_$name.json"
}

case $step in
digits)
    for seed in "${seeds[@]}"; do learn "$digits" "$runs/digits/$seed" 5 --seed "$seed"; done
    record audio_digits "$runs"/digits/?/results.json
    python "$scripts/baseline.py" audio "$digits" docs/results/audio_digits_mfcc.json all
    ;;
speakers)
    for speaker in "${speakers[@]}"; do
        apart=(--group_column speaker --test_groups "$speaker")
        for seed in "${seeds[@]}"; do learn "$digits" "$runs/speakers/$speaker-$seed" 3 "${apart[@]}" \
            --augment shift speed noise filter mask mixup --seed "$seed"; done
        few_shot "unseen_speaker/$speaker" "$runs/speakers/$speaker-0" --groups "$speaker"
        python "$scripts/baseline.py" audio "$digits" "$runs/speakers_mfcc/$speaker.json" all "${apart[@]}"
    done
    record audio_speakers "$runs"/speakers/*/results.json
    record audio_speakers_mfcc "$runs"/speakers_mfcc/*.json
    for shots in 1 5; do record "audio_unseen_speaker_$shots" "$runs"/unseen_speaker/*-$shots/results.json; done
    ;;
commands)
    for seed in "${seeds[@]}"; do learn "$commands" "$runs/commands/$seed" 5 --seed "$seed"; done
    record audio_commands "$runs"/commands/?/results.json
    python "$scripts/baseline.py" audio "$commands" docs/results/audio_commands_mfcc.json all
    ;;
pretrain)
    "${toolkit[@]}" pretrain resnet --corpus "$data/cifar10" --preset resnet-fast --max_minutes 10 --augment flip shift \
        --optim muon --learning_rate 1.2e-2 --batch_size 256 --label_smoothing 0.2 --output_dir "$runs/cifar10" --resume \
        "${flags[@]}"
    "${toolkit[@]}" pretrain audio-simclr --corpus "$commands" --preset resnet-fast --max_minutes 10 --optim muon \
        --learning_rate 1.2e-2 --image_size 48 --output_dir "$runs/simclr" --resume "${flags[@]}"
    ;;
transfer)
    gains transfer "$commands" "$runs/cifar10" "$runs/digits/0" "$runs/simclr" "$models/efficientnet_lite0_imagenet" -- 1 5 20 all
    ;;
both_ways)
    gains digits_to_commands "$commands" "$runs/digits/0" -- 1 3 10
    gains commands_to_digits "$digits" "$runs/commands/0" -- 1 3 10
    ;;
unseen)
    for seed in "${seeds[@]}"; do few_shot "unseen_digits/$seed" "$runs/commands/$seed"; done
    for shots in 1 5; do record "audio_unseen_digits_$shots" "$runs"/unseen_digits/*-$shots/results.json; done
    ;;
*)
    echo "$step: expected digits, speakers, commands, pretrain, transfer, both_ways or unseen" >&2
    exit 2
    ;;
esac
