"""Pretrain on text, on images with labels (resnet, googlenet, lenet, vit, mlp) or without (simclr, vit-mae), in
episodes (prototypical), or on recordings without labels (audio-simclr).

toolkit pretrain elmo --corpus sample --output_dir runs/elmo --preset elmo-tiny --max_minutes 1
toolkit pretrain bert --corpus 'texts/*.txt.gz' --output_dir runs/bert --max_steps 10000
toolkit pretrain word2vec --corpus articles.jsonl --text_column body --output_dir runs/word2vec
toolkit pretrain rnn --corpus sample --output_dir runs/gru --preset gru-tiny --num_directions 1 --max_minutes 1
toolkit pretrain fasttext --corpus my_texts/ --output_dir runs/fasttext --preset fasttext-small --workers 8
toolkit pretrain resnet --corpus photos/ --output_dir runs/resnet --augment flip shift --max_minutes 10
toolkit pretrain simclr --corpus unlabelled_photos/ --output_dir runs/simclr --preset resnet-fast --max_minutes 30
toolkit pretrain audio-simclr --corpus unlabelled_recordings/ --output_dir runs/sounds --max_minutes 20
torchrun --nproc_per_node 2 -m toolkit pretrain bert --corpus sample --output_dir runs/bert --max_steps 100
"""

from collections.abc import Sequence
from typing import Any

from toolkit import pretraining
from toolkit.cli.flags import parse_kind
from toolkit.modalities import MODALITIES
from toolkit.models.families import FAMILIES, presets
from toolkit.pretraining import OF_ANY_ENCODER, get_method, method_names
from toolkit.runs.results import is_main_process


def parse(words: Sequence[str]) -> tuple[str, Any]:
    classes, notes = {}, {}
    for name in method_names():
        known = presets(family=name) if name in FAMILIES else MODALITIES[OF_ANY_ENCODER[name][0]].presets()
        classes[name] = lambda name=name: get_method(name).arguments
        notes[name] = {"preset": f"One of {', '.join(known)}."}
    return parse_kind(words, "toolkit pretrain", "METHOD", classes, __doc__, notes=notes)


def run(parsed: tuple[str, Any]) -> None:
    method, arguments = parsed
    record = pretraining.run_method(method, arguments)
    if record and is_main_process():
        figures = (
            f"{name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            for name, figure in record["metrics"].items()
            if name in ("loss", "accuracy")
        )
        print(
            f"{arguments.output.output_dir}: {record['parameters']:,} parameters, "
            f"{record['training_seconds']:,.0f} s, {record['throughput']:,.0f} {record['throughput_unit']}, "
            f"held-out {', '.join(figures)}"
        )
