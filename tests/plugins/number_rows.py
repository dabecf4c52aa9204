"""A modality, an encoder and a task in one file that changes nothing in the toolkit: rows of numbers and their class.

The sample is the iris data of Fisher (1936), "The use of multiple measurements in taxonomic problems",
https://doi.org/10.1111/j.1469-1809.1936.tb02137.x, which scikit-learn installs. Run this file in place of `toolkit`.
"""

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from sklearn.datasets import load_iris
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from tasks import TASKS
from tasks.classification import Classification, LabelPrediction
from tasks.task import NO_LABEL, FinetuneArguments
from toolkit.cli.dispatch import entry_point
from toolkit.data.columns import LabelColumn
from toolkit.data.sources import Source
from toolkit.data.splits import DataFiles
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES, Modality
from toolkit.models import FAMILIES, PREFIX, Architecture, Family, Preset, presets, register
from toolkit.models.heads import classification_output
from toolkit.runs.arguments import Arguments, defaults


class Standardizer(FeatureExtractionMixin):
    """Subtracts the mean and divides by the standard deviation of the training data."""

    def __init__(self, mean=(0.0,), deviation=(1.0,), **kwargs):
        super().__init__(mean=list(mean), deviation=list(deviation), **kwargs)


class Numbers(Modality):
    name, main_input_names, columns, encoder_arguments = "numbers", ("values",), Arguments, Arguments

    def open_labelled(self, source, columns, label_column, group_column=None):
        iris = load_iris()
        names = [str(iris.target_names[target]) for target in iris.target]
        parts = {"train": (0, 1), "validation": (2,), "test": (3, 4)}  # of five, by the position of a row

        def load(split):
            kept = [i for i in range(len(names)) if i % 5 in parts[split or "train"]]
            return datasets.Dataset.from_dict({"numbers": iris.data[kept].tolist(), "label": [names[i] for i in kept]})

        return Source(source, DataFiles.named(*parts), load)

    def open_unlabelled(self, source, columns):
        return self.open_labelled(source, columns, None).with_rows(lambda rows: rows.remove_columns("label"))

    def read_inputs(self, inputs, skip_broken=False):
        try:
            texts = [each.read_text() if isinstance(each, Path) else each for each in inputs]
            return datasets.Dataset.from_dict({"numbers": [list(map(float, text.split())) for text in texts]})
        except ValueError as error:
            raise InputError(f"{error}; expected numbers") from None

    def new_processor(self, preset, options, train_rows):
        values = np.array(train_rows["numbers"][:])
        return Standardizer(values.mean(axis=0).tolist(), values.std(axis=0).tolist())

    def new_config(self, preset, options, processor):
        return presets()[preset].config(len(processor.mean))

    def load_processor(self, source, config, options):
        return Standardizer.from_pretrained(source)

    def encode(self, items, processor, model):
        return [{"values": ((np.array(x) - processor.mean) / processor.deviation).tolist(), "size": 1} for x in items]

    def collate(self, encoded, processor):
        return {"values": torch.tensor([row["values"] for row in encoded])}

    def pooling(self, model, processor):
        return lambda inputs: model(**inputs).last_hidden_state


class NumberNetConfig(PreTrainedConfig):
    model_type = PREFIX + "number-net"
    num_inputs: int = 4
    hidden_size: int = 16


class NumberNetModel(PreTrainedModel):
    config_class, main_input_name, base_model_prefix = NumberNetConfig, "values", "encoder"

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(config.num_inputs, config.hidden_size)
        self.post_init()

    def forward(self, values, **kwargs):
        return BaseModelOutput(last_hidden_state=self.layer(values).tanh())


class NumberNetForSequenceClassification(PreTrainedModel):
    config_class, main_input_name, base_model_prefix = NumberNetConfig, "values", "encoder"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = NumberNetModel(config)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, values, labels=None, return_dict=None, **kwargs):
        logits = self.classifier(self.encoder(values).last_hidden_state)
        return classification_output(SequenceClassifierOutput, logits, labels, None, return_dict)


@dataclass(kw_only=True)
class NumberArguments(FinetuneArguments):
    columns: LabelColumn = defaults(LabelColumn)


class NumberClassification(Classification):
    name, modality_name, arguments, item = "numbers", "numbers", NumberArguments, "row"
    auto_class = "AutoModelForSequenceClassification"

    def encode(self, rows, processor, model):
        labels = rows["label"][:] if "label" in rows.column_names else [None] * len(rows)
        encoded = self.modality.encode(rows["numbers"][:], processor, model)
        ids = [model.config.label2id.get(label, NO_LABEL) for label in labels]
        return datasets.Dataset.from_list(
            [{**row, "label": id, "index": i, "part": 0} for i, (row, id) in enumerate(zip(encoded, ids, strict=True))]
        )

    def collate(self, encoded, keys, processor, arguments):
        labels = torch.tensor([row["label"] for row in encoded])
        counts = {"num_targets": int((labels != NO_LABEL).sum()), "num_items": len(encoded)}
        return {**self.modality.collate(encoded, processor), "labels": labels, **counts}

    def decode(self, encoded, outputs, model, processor):
        best = outputs.softmax(dim=-1).max(dim=-1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [LabelPrediction(model.config.id2label[label], probability) for label, probability in pairs]


MODALITIES["numbers"], TASKS["numbers"] = Numbers(), NumberClassification()
HEADS = ("Model", "ForSequenceClassification")
FAMILIES["number-net"] = Family(
    modality="numbers",
    title="A network on numbers",
    paper="Rumelhart, Hinton & Williams (1986), https://doi.org/10.1038/323533a0",
    architectures=(Architecture(NumberNetConfig.model_type, __name__, "NumberNet", HEADS),),
    presets={"number-net-tiny": Preset(lambda n, h: NumberNetConfig(num_inputs=n, hidden_size=h), (16,), 4)},
)
register()

if __name__ == "__main__":
    entry_point()
