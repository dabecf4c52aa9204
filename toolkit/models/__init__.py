"""Encoders that transformers does not have, one flat file each, in its own contract: Config, Model, heads.

`register` makes them known to transformers' Auto classes; `import toolkit` sees to that.
"""


def register() -> None:
    """Add every encoder of this package to transformers' `AutoConfig`, `AutoModel` and `AutoModelFor…`."""
    import transformers

    from toolkit.models import (
        elmo,
        fast_resnet,
        fasttext,
        googlenet,
        layer_mix,
        lenet,
        mlp,
        pooling,
        resnet,
        word2vec,
    )

    for module, config, names in (
        (word2vec, word2vec.Word2VecConfig, "Model ForTokenClassification ForSequenceClassification"),
        (fasttext, fasttext.FastTextConfig, "Model ForTokenClassification ForSequenceClassification"),
        (elmo, elmo.ElmoConfig, "Model ForPreTraining ForTokenClassification ForSequenceClassification"),
        (resnet, resnet.SmallImageResNetConfig, "Model ForImageClassification"),
        (fast_resnet, fast_resnet.FastResNetConfig, "Model ForImageClassification"),
        (lenet, lenet.LeNetConfig, "Model ForImageClassification"),
        (googlenet, googlenet.GoogLeNetConfig, "Model ForImageClassification"),
        (mlp, mlp.MlpConfig, "Model ForImageClassification"),
        (pooling, pooling.PooledConfig, "Model ForImageClassification"),
        (layer_mix, layer_mix.LayerMixConfig, "ForTokenClassification ForSequenceClassification"),
    ):
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        family = config.__name__.removesuffix("Config")
        for name in names.split():
            auto_class = getattr(transformers, f"AutoModel{name.removeprefix('Model')}")
            auto_class.register(config, getattr(module, family + name), exist_ok=True)
