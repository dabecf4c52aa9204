"""Classify texts, images or recordings by the names or descriptions of classes; some classes may have examples too.

toolkit zeroshot evaluate --encoder runs/bert --data trec/ --descriptions trec.csv --unlabelled more.txt --rounds 2
toolkit zeroshot evaluate --encoder runs/bert --data banking77/ --seen_fraction 0.5 --shots 10
toolkit zeroshot evaluate --encoder runs/resnet --label_encoder runs/word2vec --data photos/ --unseen cat truck
toolkit zeroshot predict 'The match ended two to one.' --encoder runs/bert --labels sport politics
toolkit zeroshot predict --encoder runs/bert --data sport_and_politics.csv --labels weather < more.txt
"""

from collections.abc import Sequence
from typing import Any

from tasks.zero_shot import EvaluateZeroShotArguments, PredictZeroShotArguments
from toolkit.cli.flags import parse_kind

ACTIONS: dict[str, type] = {"evaluate": EvaluateZeroShotArguments, "predict": PredictZeroShotArguments}


def parse(words: Sequence[str]) -> Any:
    return parse_kind(words, "toolkit zeroshot", "ACTION", ACTIONS, __doc__, ["inputs"])[1]


def run(arguments: Any) -> None:
    from tasks.examples import check_alone

    check_alone()
    if isinstance(arguments, PredictZeroShotArguments):
        _predict(arguments)
        return
    from tasks.zero_shot import evaluate

    record = evaluate(arguments)
    print(
        f"zero-shot on {record['dataset']} ({record['split']}, {record['n']:,} items of {record['classes']} classes)"
    )
    for name, found in record["metrics"].items():
        print(f"  {name:14} {found['value']:.4f}  [{found['low']:.4f}, {found['high']:.4f}]")
    if "by_seed" in record:
        print("  harmonic mean by seed " + " ".join(f"{value:.4f}" for value in record["by_seed"]))


def _predict(arguments: PredictZeroShotArguments) -> None:
    from tasks.zero_shot import fit_classifier
    from toolkit.cli.fewshot import print_labels
    from toolkit.cli.predict import read_inputs
    from toolkit.transfer.encoders import modality_of_encoder

    inputs = read_inputs(arguments.input.inputs)
    modality = modality_of_encoder(arguments.examples.encoder, arguments.examples.modality)
    classifier = fit_classifier(modality, arguments)
    rows = modality.read_inputs(inputs, arguments.columns.skip_broken)
    probabilities = classifier.predict_proba([row[modality.name] for row in rows])
    predicted = classifier.classes_[probabilities.argmax(axis=1)].tolist()
    print_labels(rows, classifier, predicted, probabilities, arguments.input.output_format, modality)
