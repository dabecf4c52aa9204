"""Encoders that transformers does not have, one flat file each, in its own contract: Config, Model, heads.

`register` makes them known to transformers' Auto classes; `import toolkit` sees to that.
"""


def register() -> None:
    """Add every encoder of this package to transformers' `AutoConfig`, `AutoModel` and `AutoModelFor…`."""
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForTokenClassification

    from toolkit.models import elmo, word2vec

    for config, model in (
        (word2vec.Word2VecConfig, word2vec.Word2VecModel),
        (elmo.ElmoConfig, elmo.ElmoModel),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    AutoModelForPreTraining.register(elmo.ElmoConfig, elmo.ElmoForPreTraining, exist_ok=True)
    AutoModelForTokenClassification.register(
        word2vec.Word2VecConfig, word2vec.Word2VecForTokenClassification, exist_ok=True
    )
    AutoModelForTokenClassification.register(elmo.ElmoConfig, elmo.ElmoForTokenClassification, exist_ok=True)
