"""A text encoder in one file that changes nothing in the toolkit: a bag of hashed tokens that predicts masked ones.

Tokens with the same hash share an embedding: Weinberger, Dasgupta, Langford, Smola & Attenberg (2009), "Feature
hashing for large scale multitask learning", https://arxiv.org/abs/0902.2206. Run this file in place of `toolkit`.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel, modeling_outputs

from toolkit.cli.dispatch import entry_point
from toolkit.models import FAMILIES, PREFIX, Architecture, Family, Preset, register
from toolkit.models.heads import classification_output
from toolkit.pretraining.bert import BertArguments, MaskTokens, piece_recipe
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.pretraining.text_corpus import load_windows
from toolkit.runs.arguments import defaults


class HashedWordsConfig(PreTrainedConfig):
    model_type = PREFIX + "hashed-words"
    vocab_size: int = 1000
    hidden_size: int = 64


class HashedWordsModel(PreTrainedModel):
    config_class, base_model_prefix = HashedWordsConfig, "encoder"

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(4096, config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        states = self.embeddings(input_ids * 2654435761 % self.embeddings.num_embeddings)
        return modeling_outputs.BaseModelOutput(last_hidden_state=states)


class HashedWordsForMaskedLM(PreTrainedModel):
    config_class, base_model_prefix = HashedWordsConfig, "encoder"
    output_class = modeling_outputs.MaskedLMOutput

    def __init__(self, config):
        super().__init__(config)
        self.encoder = HashedWordsModel(config)
        num_outputs = config.vocab_size if type(self) is HashedWordsForMaskedLM else config.num_labels
        self.classifier = torch.nn.Linear(2 * config.hidden_size, num_outputs)
        self.post_init()

    def forward(self, input_ids, attention_mask, labels=None, return_dict=None, **kwargs):
        states, mask = self.encoder(input_ids).last_hidden_state, attention_mask.unsqueeze(-1)
        mean = (states * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
        logits = self.classifier(torch.cat([states, mean.expand_as(states)], dim=-1))
        if isinstance(self, HashedWordsForSequenceClassification):
            logits = logits.masked_fill(mask == 0, -1e4).amax(dim=1)
        return classification_output(self.output_class, logits, labels, None, return_dict)


class HashedWordsForTokenClassification(HashedWordsForMaskedLM):
    output_class = modeling_outputs.TokenClassifierOutput


class HashedWordsForSequenceClassification(HashedWordsForMaskedLM):
    output_class = modeling_outputs.SequenceClassifierOutput


HEADS = ("Model", "ForTokenClassification", "ForSequenceClassification")


@dataclass(kw_only=True)
class HashedWordsArguments(BertArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="hashed-words-tiny")


def pretrain_hashed_words(arguments: HashedWordsArguments):
    run = Run("hashed-words", arguments)
    [tokenizer], rows = load_windows(run, piece_recipe)
    torch.manual_seed(arguments.training.seed)
    model = HashedWordsForMaskedLM(run.preset.config(len(tokenizer)))
    collate = MaskTokens.for_tokenizer(tokenizer, arguments.training.seed, packed=False)
    run.create_output_dir()
    return train_and_record(run, model, tokenizer, rows, collate, collate, item="token")


FAMILIES["hashed-words"] = Family(
    modality="text",
    title="A bag of hashed words",
    paper="Weinberger et al. (2009), Feature hashing, https://arxiv.org/abs/0902.2206",
    tokenizer="wordpiece",
    method=Method(HashedWordsArguments, pretrain_hashed_words),
    architectures=(Architecture(HashedWordsConfig.model_type, __name__, "HashedWords", HEADS),),
    presets={"hashed-words-tiny": Preset(lambda v, h: HashedWordsConfig(vocab_size=v, hidden_size=h), (64,), 2000)},
)
register()

if __name__ == "__main__":
    entry_point()
