"""Settings of the losses: what each takes, its weight, and the batches it is for."""

from dataclasses import dataclass
from typing import Any, Literal

from xmr.train.settings.field import setting


@dataclass(frozen=True)
class LossSettings:
    """What every loss has."""

    weight: float = setting(1.0, "of this loss in the sum; 0: not used", at_least=0)
    batches: tuple[str, ...] = setting((), "kinds of batches it is for, as image-text; empty: all")


@dataclass(frozen=True)
class PairLossSettings(LossSettings):
    """A loss of two modalities of a batch."""

    use_ids: bool = setting(True, "rows that show the same thing are no negatives; false: as published, all others are")


@dataclass(frozen=True)
class RankingSettings(PairLossSettings):
    """Of xmr.train.losses.ranking."""

    margin: float = setting(0.2, "by which a pair must be ahead, in cosine", at_least=0)
    both_ways: bool = setting(True, "the second modality asks the first too")
    similarity: Literal["dot", "order"] = setting("dot", "inner product, or order embeddings")
    shared_layers: bool = setting(False, "also at the head's layers below the embedding and at its class softmax")


@dataclass(frozen=True)
class HardestNegativeSettings(PairLossSettings):
    """Of xmr.train.losses.hardest_negative."""

    margin: float = setting(0.2, "by which a pair must be ahead, in cosine", at_least=0)
    n_hardest: int = setting(1, "negatives that count, of each row", at_least=1)
    diagonal: Literal["mask", "dsve"] = setting("mask", "how the pair itself is left out; dsve: minus twice its score")
    similarity: Literal["dot", "order"] = setting("dot", "inner product, or order embeddings")


@dataclass(frozen=True)
class InfoNceSettings(PairLossSettings):
    """Of xmr.train.losses.info_nce."""

    temperature: float = setting(0.07, "cosines are divided by it", at_least=1e-4)
    is_learned: bool = setting(False, "let the temperature learn, from that value on")


@dataclass(frozen=True)
class SigmoidSettings(PairLossSettings):
    """Of xmr.train.losses.sigmoid."""

    temperature: float = setting(0.1, "cosines are divided by it", at_least=1e-4)
    bias: float = setting(-10.0, "added to every logit")
    is_learned: bool = setting(True, "let temperature and bias learn, from those values on")


@dataclass(frozen=True)
class TransferSettings(LossSettings):
    """Of xmr.train.losses.kl_transfer: the image encoder's own classifier teaches the head's class softmax."""

    modalities: tuple[str, ...] = setting((), "those that are taught; empty: all of the batch")


@dataclass(frozen=True)
class CmpmSettings(PairLossSettings):
    """Of xmr.train.losses.cmpm."""


@dataclass(frozen=True)
class CmpcSettings(LossSettings):
    """Of xmr.train.losses.cmpc; its classes are the ids of the training rows."""

    label_smoothing: float = setting(0.0, "share of the target spread over all classes", at_least=0, below=1)


@dataclass(frozen=True)
class ReconstructionSettings(LossSettings):
    """Of xmr.train.losses.reconstruction: over all modalities of a batch, in the order image, speech, text."""

    weight: float = setting(0.05, "of this loss in the sum; 0: not used", at_least=0)
    smooth: float = setting(6.0, "sharpness of the attention weights", at_least=0)
    weight_axis: Literal["target", "source"] = setting(
        "source", "of three modalities, what the attention weights sum to 1 over; target: as published"
    )


@dataclass(frozen=True)
class SampledImpostorsSettings(PairLossSettings):
    """Of xmr.train.losses.sampled_impostors: DAVEnet's loss of matchmaps, or of embeddings."""

    margin: float = setting(1.0, "by which a pair must be ahead", at_least=0)
    matchmap: Literal["SISA", "MISA", "SIMA", "none"] = setting("MISA", "how a matchmap becomes a score; none: no map")


@dataclass(frozen=True)
class SemiHardSettings(PairLossSettings):
    """Of xmr.train.losses.semi_hard."""

    margin: float = setting(1.0, "by which a pair must be ahead", at_least=0)
    faithful: bool = setting(False, "as published, where 0 stands in for a missing impostor's score")


LOSS_SETTINGS: dict[str, type[Any]] = {
    "ranking": RankingSettings,
    "hardest_negative": HardestNegativeSettings,
    "info_nce": InfoNceSettings,
    "sigmoid": SigmoidSettings,
    "kl_transfer": TransferSettings,
    "cmpm": CmpmSettings,
    "cmpc": CmpcSettings,
    "reconstruction": ReconstructionSettings,
    "sampled_impostors": SampledImpostorsSettings,
    "semi_hard": SemiHardSettings,
}
