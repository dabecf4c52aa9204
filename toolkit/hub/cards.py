"""The card of a repository, its README.md: made from `results.json` and the configuration, around what people wrote.

Mitchell et al. (2019), "Model cards for model reporting", https://arxiv.org/abs/1810.03993; the fields of the metadata
are those of https://huggingface.co/docs/hub/model-cards. What stands between the two markers is written anew by each
push; text around it, and metadata that somebody has set, stay.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.errors import InputError, first_line, readable
from toolkit.hub.safety import Kind
from toolkit.models import PREFIX
from toolkit.models.families import FEW_SHOT_FILE, SCRATCH, family_of
from toolkit.runs.results import RESULTS_FILE

CARD = "README.md"
BEGIN = "<!-- Written anew by each `toolkit push` up to the end mark; what you write around it stays."
END = "<!-- toolkit: end -->"
# In the first mark: a digest of what stood around it, and the metadata that were made, as JSON.
_BLOCK = re.compile(rf"{re.escape(BEGIN)} \[(\w*) (.*?)\] -->\n.*?{re.escape(END)}\n?", re.DOTALL)
_METADATA = re.compile(r"\A---\n(.*?)\n?---\n", re.DOTALL)

PIPELINES = {  # transformers' name of the task, by how a class ends
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
    "ForMaskedLM": "fill-mask",
}
_NEEDS_TOOLKIT = "It needs `pip install pretrain-transfer-toolkit`."
_NOTE_ON_CODE = (
    "transformers does not have this class of model; its source is in this repository, and `trust_remote_code=True` "
    "runs it. Give `revision=` the commit that you have read, and nothing newer is run."
)


def card(
    folder: Path,
    repo_id: str,
    kind: Kind,
    files: Iterable[str],
    earlier: str | None = None,
    revision: str | None = None,
) -> bytes:
    """The card for the folder's files, beside the one that the repository has, `earlier`.

    Of the folder's own README.md and the earlier one that is taken which somebody has edited since the last push.
    Raises `InputError` where both were, or the metadata of either cannot be read.
    """
    local = _read_text(folder / CARD) if (folder / CARD).is_file() else None
    chosen = _newer(local, earlier, str(folder))
    metadata, text = _split(chosen, f"{folder if chosen == local else repo_id}/{CARD}")
    ours, block = (_of_data if kind == "dataset" else _of_model)(folder, repo_id, files, revision)
    made = _made(text)
    theirs = {name: value for name, value in metadata.items() if name != "model-index" and made.get(name) != value}
    merged = {**ours, **theirs}
    if isinstance(tags := theirs.get("tags"), list):
        added = [tag for tag in tags if tag not in made.get("tags", [])]
        merged["tags"] = list(dict.fromkeys([*added, *ours["tags"]]))
    if not _BLOCK.search(text):
        text = f"{text.strip() or '# ' + repo_id.rpartition('/')[2]}\n\n{BEGIN} [ ] -->\n{END}\n"
    text = f"---\n{_as_yaml(merged)}---\n\n{text.lstrip()}"
    note = json.dumps({name: value for name, value in ours.items() if name != "model-index"})
    block = f"{BEGIN} [{_digest(text)} {note}] -->\n\n{block.strip()}\n\n{END}\n"
    return _BLOCK.sub(lambda found: block, text, count=1).encode()


def _made(text: str) -> dict[str, Any]:
    """The metadata that the last push made, for what of them still stands there to be replaced."""
    found = _BLOCK.search(text)
    try:
        return dict(json.loads(found[2])) if found else {}
    except ValueError:  # somebody has edited the mark
        return {}


def _newer(local: str | None, earlier: str | None, folder: str) -> str:
    """Which of the two somebody has edited since the last push, which left a digest of both."""
    if local is None or earlier is None:
        return local or earlier or ""
    pushed, mine = (found and found[1] for found in (_BLOCK.search(earlier), _BLOCK.search(local)))
    if _digest(local) in (_digest(earlier), pushed, mine):  # as it was pushed, now or some time ago
        return earlier
    if _digest(earlier) == pushed and mine in (None, pushed):
        return local
    raise InputError(f"{folder}/{CARD}: edited here and on the Hub; take over what is there, or delete it here")


def _digest(text: str) -> str:
    """Of what somebody may have written: metadata, but for the figures, and the text around the block."""
    metadata, text = _split(text, CARD)
    written = {name: value for name, value in metadata.items() if name != "model-index"}
    around = [json.dumps(written, sort_keys=True, default=str), *_BLOCK.sub("", text).split()]
    return hashlib.sha256(" ".join(around).encode()).hexdigest()[:12]


def _split(text: str, name: str) -> tuple[dict[str, Any], str]:
    """Metadata and text. Raises `InputError`."""
    import yaml

    found = _METADATA.match(text)
    if found is None:
        return {}, text
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except (yaml.YAMLError, ValueError) as error:  # of a day that there is not, for example
        raise InputError(f"{name}: the metadata between the lines --- are no YAML ({first_line(error)})") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{name}: the metadata between the lines --- are no mapping")
    return metadata, text[found.end() :]


def _as_yaml(metadata: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) if metadata else ""


def _read_text(path: Path) -> str:
    with readable(path):
        return path.read_text(encoding="utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none. Raises `InputError` where it is no mapping."""
    text = _read_text(path) if path.is_file() else "{}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a mapping")
    return found


# Models


def _of_model(folder: Path, repo_id: str, files: Iterable[str], revision: str | None) -> tuple[dict[str, Any], str]:
    """Metadata, and the block between the markers."""
    files = set(files)
    config, record = read_mapping(folder / "config.json"), _record(folder)
    is_few_shot = FEW_SHOT_FILE in files
    inside = config.get("encoder")
    family = str((inside if isinstance(inside, dict) else config).get("model_type", "")).removeprefix(PREFIX)
    architecture = str((config.get("architectures") or [""])[0])
    head = next((end for end in PIPELINES if architecture.endswith(end)), "")
    pipeline = PIPELINES.get(head)
    labels = _labels(folder, config, pipeline)
    metrics = {name: figure for name, figure in record.get("metrics", {}).items() if not name.startswith("f1_")}
    row = family_of(str((inside if isinstance(inside, dict) else config).get("model_type", "")))
    noun, paper = (row.title, row.paper) if row else (f"A {family}" if family else "A tokenizer", None)
    snippet, note = _snippet(repo_id, config, head, files, revision)
    dataset = record.get("dataset")
    metadata: dict[str, Any] = {
        "library_name": "transformers" if config or not is_few_shot else "pretrain-transfer-toolkit",
        "tags": [tag for tag in ("pretrain-transfer-toolkit", family, record.get("task")) if tag],
    }
    if pipeline is not None:
        metadata["pipeline_tag"] = pipeline
    elif config:
        metadata["pipeline_tag"] = (
            "image-feature-extraction" if "preprocessor_config.json" in files else "feature-extraction"
        )
    from_hub = record.get("from_hub", [])
    if (encoder := record.get("encoder")) in from_hub:
        metadata["base_model"] = str(encoder).partition("@")[0]
    if dataset in from_hub:
        metadata["datasets"] = [str(dataset).partition(":")[0]]
    if metrics and record.get("task") != "pretraining":
        metadata["model-index"] = _index(repo_id, record, pipeline or record["task"], metrics)
    block = _render(
        what=_what(noun, record, pipeline, is_few_shot),
        snippet=snippet,
        note=note,
        dataset=_data_said(record),
        licence=_licence(record),
        train_size=record.get("train_size"),
        labels=labels,
        metrics=metrics,
        split=record.get("split"),
        n=record.get("n"),
        record=record,
        cost=_cost(record) if record else None,
        settings={k: v for k, v in record.get("arguments", {}).items() if v not in (None, False, [], "")},
        limits=_limits(family, record, config, bool(labels)),
        papers=[paper for paper in (paper, f"pretrain-transfer-toolkit {__version__}") if paper],
    )
    return metadata, block


def _record(folder: Path) -> dict[str, Any]:
    """That of a run of this toolkit; nothing of others, which may use the name of the file for something else."""
    record = read_mapping(folder / RESULTS_FILE)
    metrics = record.get("metrics")
    is_ours = isinstance(metrics, dict) and all(
        isinstance(figure, dict) and {"value", "low", "high"} <= set(figure) for figure in metrics.values()
    )
    return record if is_ours and {"task", "dataset", "split", "n"} <= set(record) else {}


def _what(noun: str, record: Mapping[str, Any], pipeline: str | None, is_few_shot: bool) -> str:
    encoder = str(record.get("encoder", ""))
    if is_few_shot:
        what = f"A few-shot classifier over {noun[:1].lower() + noun[1:]}"
    elif pipeline not in (None, "fill-mask"):
        what = f"{noun} with a head for {str(pipeline).replace('-', ' ')}"
    else:
        what = noun
    if parameters := record.get("parameters"):
        what += f", {parameters:,} parameters"
    if record.get("task") == "pretraining":
        what += f", pretrained with the preset `{encoder}`"
    elif encoder.startswith(SCRATCH):
        what += f", trained from random weights (`{encoder}`)"
    elif encoder:
        what += f", made from the encoder `{_shown(encoder)}`"
    return what + "."


def _snippet(repo_id: str, config: dict, head: str, files: set[str], revision: str | None) -> tuple[str, str | None]:
    """Three lines of Python that load it, and what is to be known of them."""
    if FEW_SHOT_FILE in files and not config:
        at = f"{repo_id}@{revision}" if revision else repo_id
        load = f'classifier = FewShotClassifier.from_pretrained("{at}")'
        return f"from toolkit import FewShotClassifier\n{load}\nclassifier.classes_", _NEEDS_TOOLKIT
    is_ours = str(config.get("model_type", "")).startswith(PREFIX)
    travels = is_ours and any(name.endswith(".py") for name in files)
    pin = f', revision="{revision}"' if revision else ""
    trust = ", trust_remote_code=True" if travels else ""
    first = ["import toolkit"] if is_ours and not travels else []
    note = _NEEDS_TOOLKIT if first else _NOTE_ON_CODE if travels else None
    if head in ("ForTokenClassification", "ForSequenceClassification") and "tokenizer.json" in files:
        load = f'ask = pipeline("{PIPELINES[head]}", "{repo_id}"{pin}{trust})'
        lines = [*first, "from transformers import pipeline", load, 'ask("Some text.")']
        return "\n".join(lines[:3]), note
    loads = [f'model = AutoModel{head}.from_pretrained("{repo_id}"{pin}{trust})'] if config else []
    for file, variable, loader in (
        ("preprocessor_config.json", "processor", "AutoImageProcessor"),
        ("tokenizer.json", "tokenizer", "AutoTokenizer"),
    ):
        if file in files and not first:
            loads.append(f'{variable} = {loader}.from_pretrained("{repo_id}"{pin})')
    if not config:
        loads.append('tokenizer.tokenize("Some text.")')
    imports = ", ".join(re.findall(r"Auto\w+", " ".join(loads)))
    return "\n".join([*first, f"from transformers import {imports}", *loads]), note


def _labels(folder: Path, config: dict, pipeline: str | None, most: int = 100) -> str | None:
    if (folder / FEW_SHOT_FILE).is_file():
        names = [str(name) for name in read_mapping(folder / FEW_SHOT_FILE).get("classes", [])]
    elif pipeline in (None, "fill-mask"):
        return None
    else:
        names = list((config.get("id2label") or {}).values())
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most:,} others" if len(names) > most else shown or None


def _index(repo_id: str, record: dict, task: str, metrics: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    dataset = str(record["dataset"])
    named = dataset.partition(":")[0] if dataset in record.get("from_hub", []) else _shown(dataset)
    return eval_results_to_model_index(
        repo_id.rpartition("/")[2],
        [
            EvalResult(
                task_type=task,
                dataset_type=named,
                dataset_name=named,
                dataset_split=record["split"],
                metric_type="f1" if name.startswith("macro_f1") else name,
                metric_name=name,
                metric_value=figure["value"],
                metric_args={"confidence_interval_95": [figure["low"], figure["high"]], "n": record["n"]},
            )
            for name, figure in metrics.items()
        ],
    )


def _shown(source: str) -> str:
    """A path without the folders that concern nobody else."""
    path = Path(source)
    if not path.is_absolute() and ".." not in path.parts:
        return source
    return "/".join(path.parts[-2:]) if path.suffix else path.name


def _data_said(record: Mapping[str, Any]) -> str | None:
    if not (dataset := record.get("dataset")):
        return None
    return "The data that ships with the toolkit (`sample`)" if dataset == "sample" else f"`{_shown(str(dataset))}`"


def _licence(record: Mapping[str, Any]) -> str:
    """Of the data, as far as it is known: of the samples, from the card or licence file beside it, from the Hub."""
    dataset = str(record.get("dataset", ""))
    if dataset == "sample":
        return record.get("sample_license", "not known")
    path = Path(dataset)
    for folder in (path, *path.absolute().parents[:1]) if path.exists() else ():
        if found := _split_or_nothing(folder / CARD).get("license"):
            return str(found)
        for file in sorted(folder.glob("LICEN[CS]E*")):
            if file.is_file():
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
                return next(filter(None, map(str.strip, lines)), "not known")
    if dataset in record.get("from_hub", []):
        return _licence_on_hub(dataset.partition(":")[0])
    return "not known"


@functools.cache  # a card is made twice: before anything is sent, and beside the one that is there
def _licence_on_hub(dataset: str) -> str:
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(dataset, timeout=5)
        return str((info.card_data and info.card_data.get("license")) or "not known")
    except Exception:  # whatever keeps it from saying, a card without it is better than none
        return "not known"


def _split_or_nothing(path: Path) -> dict[str, Any]:
    try:
        return _split(_read_text(path), str(path))[0] if path.is_file() else {}
    except InputError:
        return {}


def _cost(record: Mapping[str, Any]) -> str:
    machine, versions = record.get("machine", {}), record.get("versions", {})
    where = ", ".join(machine["gpus"]) if machine.get("gpus") else f"{machine.get('cores', '?')} CPU cores"
    made = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers") if name in versions)
    seconds = record.get("training_seconds", record.get("seconds", 0.0))
    parts = [f"{seconds:,.0f} seconds of training on {where}"]
    if record.get("num_steps"):
        parts.append(f"{record['num_steps']:,} steps")
    if "peak_memory_mb" in record:
        parts.append(f"at most {record['peak_memory_mb']:,.0f} MB of memory")
    return f"{', '.join(parts)}; seed {record.get('seed')}; {made}."


def _limits(family: str, record: Mapping[str, Any], config: Mapping[str, Any], has_labels: bool) -> list[str]:
    limits = []
    if record.get("metrics"):
        limits.append("The figures are of one run; their intervals do not say how much another seed changes.")
    if has_labels:
        limits.append("It gives one of its labels to whatever it reads, however unlike.")
    if "threshold" in record:
        limits.append("New classes, and the rejection of what is unlike all, need `toolkit.FewShotClassifier`.")
    if family == "word2vec":
        limits.append("All words that it did not see in pretraining share one vector.")
    if config.get("tagging_head") == "crf":
        limits.append(
            "Its CRF decides in `toolkit predict` only; pipelines of transformers show each word's best tag."
        )
    limits.append("What biases its data has was not measured.")
    return limits


# Data sets


def _of_data(folder: Path, repo_id: str, files: Iterable[str], revision: str | None) -> tuple[dict[str, Any], str]:
    from toolkit.data.sources import TABLE_BUILDERS, files_by_split

    paths = [folder / name for name in sorted(files) if Path(name).suffix not in (".md", ".py")]
    splits = files_by_split(folder, paths)
    suffixes = {path.suffix for of_split in splits.values() for path in of_split}
    metadata: dict[str, Any] = {"tags": ["pretrain-transfer-toolkit"]}
    if len(suffixes) == 1 and suffixes <= {".txt", *TABLE_BUILDERS}:
        data_files = [
            {"split": split, "path": [path.relative_to(folder).as_posix() for path in of_split]}
            for split, of_split in splits.items()
        ]
        metadata["configs"] = [{"config_name": "default", "data_files": data_files}]
        pin = f', revision="{revision}"' if revision else ""
        snippet = f'from datasets import load_dataset\ndata = load_dataset("{repo_id}"{pin})\nprint(data)'
    else:
        snippet = f'from toolkit.hub.download import pull\npull("{repo_id}", "DIR", kind="dataset")  # then --data DIR'
    listed = "; ".join(f"{split} in {len(of_split)} files" for split, of_split in splits.items())
    note = f"From the command line: `toolkit pull {repo_id} DIR --repo_type dataset`, then `--data DIR`."
    return metadata, _render(what=f"A data set: {listed}.", snippet=snippet, note=note)


def _render(**fields: Any) -> str:
    from importlib.resources import files

    import jinja2

    template = files("toolkit.hub").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined)
    rendered = environment.from_string(template).render(**fields)
    return re.sub(r"\n+(?=## )", "\n\n", rendered).strip()
