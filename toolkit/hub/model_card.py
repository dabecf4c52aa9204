"""What a card says about a model: what it is, how to load it, its data, labels, figures, training and limits."""

import functools
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.errors import InputError
from toolkit.hub.readme import CARD, read_mapping, read_text, render, split_metadata
from toolkit.models.families import FEW_SHOT_FILE, PREFIX, SCRATCH, architectures, family_of
from toolkit.runs.results import RESULTS_FILE

UNKNOWN = "not known"
MAX_LABELS = 100  # that are listed
PIPELINES = {  # transformers' name of the task, by the end of the name of a class
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForMaskedLM": "fill-mask",
    "ForConditionalGeneration": "text-generation",
}
PROCESSOR = "preprocessor_config.json"
WITHOUT_LABELS = (None, "fill-mask", "text-generation")
FEATURES = {  # pipeline tag of a model without head, by modality
    "text": "feature-extraction",
    "image": "image-feature-extraction",
    "audio": "feature-extraction",
}
_NEEDS_TOOLKIT = "It needs `pip install pretrain-transfer-toolkit`."
_NOTE_ON_CODE = (
    "transformers does not have this class of model; its source is in this repository, and `trust_remote_code=True` "
    "runs it. Give `revision=` the commit that you have read, and nothing newer is run."
)


def describe_model(folder: Path, repo_id: str, files: set[str], revision: str | None) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a model's card; the arguments are those of `write_card`."""
    config, record = read_mapping(folder / "config.json"), _read_record(folder)
    inside = config
    while isinstance(inside.get("encoder"), dict):  # a few-shot classifier has an image encoder on spectrograms
        inside = inside["encoder"]
    model_type = str(inside.get("model_type", ""))
    row, name = family_of(model_type), model_type.removeprefix(PREFIX)
    noun = row.title if row else f"A {name}" if name else "A tokenizer"
    modality = row.modality if row else record.get("modality")
    extractor = read_mapping(folder / PROCESSOR).get("feature_extractor_type")
    if extractor is not None:
        modality = "audio"
        noun += " on spectrograms" if row and row.modality == "image" else ""
    if modality not in FEATURES:
        modality = "image" if PROCESSOR in files else "text"
    architecture = str((config.get("architectures") or [""])[0])
    head = next((end for end in PIPELINES if architecture.endswith(end)), "")
    pipeline = PIPELINES.get(head)
    metrics = {name: figure for name, figure in record.get("metrics", {}).items() if not name.startswith("f1_")}
    is_few_shot = FEW_SHOT_FILE in files
    encoder, dataset = (str(record.get(field) or "") for field in ("encoder", "dataset"))
    task, from_hub = record.get("task") or config.get("toolkit_task"), record.get("from_hub", [])
    metadata: dict[str, Any] = {
        "library_name": "transformers" if config or not is_few_shot else "pretrain-transfer-toolkit",
        "tags": [tag for tag in ("pretrain-transfer-toolkit", name, task) if tag],
    }
    if config:
        metadata["pipeline_tag"] = pipeline or FEATURES[modality]
    if encoder in from_hub:
        metadata["base_model"] = encoder.partition("@")[0]
    if dataset in from_hub:
        metadata["datasets"] = [dataset.partition(":")[0]]
    if metrics and task != "pretraining":
        metadata["model-index"] = _model_index(repo_id, record, pipeline or str(task), metrics)
    snippet, note = _snippet(repo_id, config, head, files, revision, extractor)
    text = render(
        noun=noun,
        is_few_shot=is_few_shot,
        head=head not in ("", "ForMaskedLM"),
        pipeline=pipeline,
        encoder=_shorten(encoder),
        is_scratch=encoder.startswith(SCRATCH),
        snippet=snippet,
        note=note,
        dataset=_shorten(dataset),
        licence=_licence(record),
        labels=_labels(folder, config, pipeline),
        metrics=metrics,
        record=record,
        has_one_unknown_vector=row is not None and row.tokenizer == "word",
        has_crf=config.get("tagging_head") == "crf",
        reads_characters=bool(config.get("source_by_character")),
        papers=[*([row.paper] if row else []), f"pretrain-transfer-toolkit {__version__}"],
    )
    return metadata, text


def _read_record(folder: Path) -> dict[str, Any]:
    """The record of a run; empty if `results.json` is missing or of another tool."""
    record = read_mapping(folder / RESULTS_FILE)
    metrics = record.get("metrics")
    is_ours = isinstance(metrics, dict) and all(
        isinstance(figure, dict) and {"value", "low", "high"} <= set(figure) for figure in metrics.values()
    )
    return record if is_ours and {"task", "dataset", "split", "n"} <= set(record) else {}


def _model_index(repo_id: str, record: dict, task: str, metrics: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The figures as the Hub shows them."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    dataset = str(record["dataset"])
    shown = dataset.partition(":")[0] if dataset in record.get("from_hub", []) else _shorten(dataset)
    on: Any = {"dataset_type": shown, "dataset_name": shown, "dataset_split": record["split"]}
    results = [
        EvalResult(
            task_type=task,
            metric_type="f1" if name.startswith("macro_f1") else name,
            metric_name=name,
            metric_value=figure["value"],
            metric_args={"confidence_interval_95": [figure["low"], figure["high"]], "n": record["n"]},
            **on,
        )
        for name, figure in metrics.items()
    ]
    return eval_results_to_model_index(repo_id.rpartition("/")[2], results)


def _snippet(
    repo_id: str, config: dict, head: str, files: set[str], revision: str | None, extractor: str | None
) -> tuple[str, str | None]:
    """Three lines of Python that load the model, and a note on them."""
    if FEW_SHOT_FILE in files and not config:
        at = f"{repo_id}@{revision}" if revision else repo_id
        load = f'classifier = FewShotClassifier.from_pretrained("{at}")'
        return f"from toolkit import FewShotClassifier\n{load}\nclassifier.classes_", _NEEDS_TOOLKIT
    model_type = str(config.get("model_type", ""))
    ours = {each.model_type for each in architectures()} | {each.feature_extractor for each in architectures()}
    is_ours = model_type.startswith(PREFIX) or model_type in ours or (extractor is not None and extractor in ours)
    has_code = is_ours and any(name.endswith(".py") for name in files)
    pin = f', revision="{revision}"' if revision else ""
    trust = ", trust_remote_code=True" if has_code else ""
    first = ["import toolkit"] if is_ours and not has_code else []
    note = _NEEDS_TOOLKIT if first else _NOTE_ON_CODE if has_code else None
    if head in ("ForTokenClassification", "ForSequenceClassification") and "tokenizer.json" in files:
        load = f'ask = pipeline("{PIPELINES[head]}", "{repo_id}"{pin}{trust})'
        lines = [*first, "from transformers import pipeline", load, 'ask("Some text.")']
        return "\n".join(lines[:3]), note
    if head == "ForConditionalGeneration":
        return _snippet_of_generation(repo_id, pin, trust, first), note
    loads = [f'model = AutoModel{head}.from_pretrained("{repo_id}"{pin}{trust})'] if config else []
    if PROCESSOR in files and not first:
        kind = "ImageProcessor" if extractor is None else "FeatureExtractor"
        loads.append(f'processor = Auto{kind}.from_pretrained("{repo_id}"{pin}{trust if extractor else ""})')
    if "tokenizer.json" in files and not first:
        loads.append(f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{pin})')
    if not config:
        loads.append('tokenizer.tokenize("Some text.")')
    imports = ", ".join(re.findall(r"Auto\w+", " ".join(loads)))
    return "\n".join([*first, f"from transformers import {imports}", *loads]), note


def _snippet_of_generation(repo_id: str, pin: str, trust: str, first: list[str]) -> str:
    """Python that generates a target, which has a tokenizer of its own."""
    lines = [
        *first,
        "from huggingface_hub import hf_hub_download",
        "from tokenizers import Tokenizer",
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
        f'model = AutoModelForSeq2SeqLM.from_pretrained("{repo_id}"{pin}{trust})',
        f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}"{pin})',
        f'target_tokenizer = Tokenizer.from_file(hf_hub_download("{repo_id}", "target_tokenizer.json"{pin}))',
        'found = model.generate(**tokenizer("a source", return_tensors="pt"))',
        "target_tokenizer.decode(found[0].tolist())",
    ]
    return "\n".join(lines)


def _labels(folder: Path, config: dict, pipeline: str | None) -> str | None:
    if (folder / FEW_SHOT_FILE).is_file():
        names = [str(name) for name in read_mapping(folder / FEW_SHOT_FILE).get("classes", [])]
    elif pipeline in WITHOUT_LABELS:
        return None
    else:
        names = list((config.get("id2label") or {}).values())
    shown = ", ".join(f"`{name}`" for name in names[:MAX_LABELS])
    return f"{shown} and {len(names) - MAX_LABELS:,} others" if len(names) > MAX_LABELS else shown or None


def _shorten(source: str) -> str:
    """A path without the folders of this machine."""
    path = Path(source)
    if not path.is_absolute() and ".." not in path.parts:
        return source
    return "/".join(path.parts[-2:]) if path.suffix else path.name


def _licence(record: dict[str, Any]) -> str:
    """The licence of the data: of the sample, of a card or licence file beside it, or of its card on the Hub."""
    dataset = str(record.get("dataset", ""))
    if dataset == "sample":
        return record.get("sample_license", UNKNOWN)
    path = Path(dataset)
    for folder in (path, *path.absolute().parents[:1]) if path.exists() else ():
        with suppress(InputError):  # there is no card, or it cannot be read
            if found := split_metadata(read_text(folder / CARD), CARD)[0].get("license"):
                return str(found)
        for file in sorted(folder.glob("LICEN[CS]E*")):
            if file.is_file():
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
                return next(filter(None, map(str.strip, lines)), UNKNOWN)
    if dataset in record.get("from_hub", []):
        return _licence_on_hub(dataset.partition(":")[0])
    return UNKNOWN


@functools.cache  # a push writes the card twice: before anything is sent, and on top of the card in the repository
def _licence_on_hub(dataset: str) -> str:
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(dataset, timeout=5)
        return str((info.card_data and info.card_data.get("license")) or UNKNOWN)
    except Exception:  # a card without the licence is better than no card
        return UNKNOWN
