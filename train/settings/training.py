"""Settings of a training run: data, head, words, and the stages with their optimiser and losses."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from xmr.train.settings.field import setting


@dataclass(frozen=True)
class HeadSettings:
    """The layers that all modalities share."""

    hidden: tuple[int, ...] = setting(
        (1024,), "widths of the fully connected layers; empty: none, embeddings are what the encoders give", at_least=1
    )
    embedding: Literal["relu", "linear", "classes"] = setting(
        "relu", "what is compared: the last layer after its ReLU (as published) or before it, or the class softmax"
    )
    relu_features: bool = setting(True, "what an encoder hands over goes through a ReLU in front of the first layer")
    is_absolute: bool = setting(False, "compare absolute values, as order embeddings do")
    unnormalized: tuple[str, ...] = setting((), "modalities whose embeddings the losses see at their own length")
    n_classes: int = setting(1000, "outputs of the class softmax; the teacher's number, 0: no class layer", at_least=0)
    dropout: float = setting(
        0.0, "share of the units dropped in front of each layer while training", at_least=0, below=1
    )


@dataclass(frozen=True)
class WordSettings:
    """Word vectors: a word2vec file, trained on the captions of the training rows, or drawn at random."""

    file: str = setting("", "word2vec (.bin, or text), GloVe or a skip-thought table (.npy); empty: from the captions")
    n_words: int = setting(0, "most frequent words of the file to keep beside those of the captions", at_least=0)
    vectors: Literal["word2vec", "random", "xavier"] = setting(
        "word2vec", "trained on the captions, or drawn from ±0.1, or as Glorot's uniform weights"
    )
    dim: int = setting(300, "numbers a word, when made here", at_least=1)
    min_count: int = setting(2, "rarer words of the captions are left out", at_least=1)
    epochs: int = setting(20, "passes of word2vec over the captions", at_least=1)
    marks: bool = setting(False, "<start>, <end>, and <unk> for a word left out, are words too")
    unknown: bool = setting(False, "<unk> alone is a word too")


@dataclass(frozen=True)
class RunSettings:
    """What a training has once, whatever its stages."""

    recipe: str = setting("quick", "the recipe these settings start from, a file of xmr/train/recipes")
    about: str = setting("", "the paper behind the recipe")
    size: str = setting("full", "as published, or another size that the recipe offers, as small")
    variant: str = setting("", "one of the variants that the recipe offers")
    data: tuple[str, ...] = setting(("pairs.jsonl",), "files or folders of pairs, or NAME:PATH of a known dataset")
    modalities: tuple[str, ...] = setting((), "of those with an encoder, the ones to train; empty: all")
    captions: Literal["all", "first", "last"] = setting("all", "sentences of a row that are used")
    per_caption: bool = setting(False, "an epoch has each sentence once (as published), or one drawn of each row")
    seed: int = setting(0, "of weights, order and dropout", at_least=0)
    batches: tuple[str, ...] = setting(
        (), "kinds of batches, as image-text; empty: every two modalities that rows pair"
    )
    width: int = setting(1024, "numbers that every encoder hands to the shared head", at_least=1)
    eval_every: int = setting(
        1,
        "epochs from one evaluation on the val rows to the next; a stage's last is always evaluated",
        at_least=1,
    )
    select_by: Literal["mAP", "rsum", "R@1", "R@10", "median_rank", "last"] = setting(
        "mAP", "metric on val by which the best checkpoint is chosen; last: the latest"
    )
    select_on: tuple[str, ...] = setting((), "pairs it is looked at on, as image-text; empty: all")
    ema_decay: float = setting(0.0, "weights are averaged over steps, this share is kept; 0: no", at_least=0, below=1)


@dataclass(frozen=True)
class StageSettings:
    """What each stage may set for itself."""

    epochs: int = setting(20, "passes over the largest kind of batch", at_least=1)
    batch_size: int = setting(128, "rows of each kind of batch (image-text, image-sound) in a step", at_least=2)
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "adam: weight decay is part of the gradient")
    learning_rate: float = setting(1e-3, "at its highest", at_least=0)
    momentum: float = setting(0.9, "of sgd", at_least=0, below=1)
    weight_decay: float = setting(0.01, "of matrices, not of biases and scales", at_least=0)
    warmup_steps: int = setting(50, "steps in which the learning rate rises from 0", at_least=0)
    schedule: Literal["cosine", "constant", "step"] = setting("cosine", "of the learning rate after the warm-up")
    decay_every: int = setting(0, "epochs after which schedule step lowers the rate, again and again", at_least=0)
    decay_at: tuple[int, ...] = setting((), "epochs of the stage after which schedule step lowers the rate", at_least=1)
    decay_factor: float = setting(0.1, "by which schedule step lowers the rate", at_least=0)
    clip_norm: float = setting(0.0, "gradients are scaled down to this norm; 0: never", at_least=0)
    freeze: tuple[str, ...] = setting((), "parameters that do not learn, by name, as encoders.text.*")
    finetune: dict[str, str] = field(
        default_factory=dict,
        metadata={"meaning": 'modality = layer of its trunk from which on it learns, as "layer4"; "all": everything'},
    )
    rates: dict[str, float] = field(
        default_factory=dict, metadata={"meaning": "parameters by name = share of the learning rate they learn at"}
    )
    start: Literal["last", "best"] = setting("last", "weights a stage begins with: the last ones, or the best so far")
    fresh_best: bool = setting(False, "the best checkpoint is that of this stage, whatever was reached before it")
    fresh_optimizer: bool = setting(
        True, "begin a stage with an optimiser that knows nothing; false: hand on what it knows"
    )
    losses: dict[str, Any] = field(default_factory=dict)  # a key of LOSSES -> its Settings


@dataclass(frozen=True)
class TrainConfig(StageSettings, RunSettings):
    """Everything that decides what is trained."""

    encoders: dict[str, Any] = field(default_factory=dict)  # modality -> the Settings of its encoder
    head: HeadSettings = field(default_factory=HeadSettings)
    words: WordSettings = field(default_factory=WordSettings)
    stages: tuple[dict[str, Any], ...] = ()  # each what it sets otherwise; none: one stage as above


STAGE_KEYS = tuple(item.name for item in fields(StageSettings))
