"""Text encoders: (n, time) word ids, PAD behind the sentence's end -> (n, width).

What stands behind a sentence's end does not change its features. Every encoder learns from the word vectors on, so the
trunk is empty and `top.vectors` holds them.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.encoders.encoder import Encoder, Projection
from xmr.train.encoders.maps import max_over_time
from xmr.train.encoders.recurrent import GRU, LSTM, SRU, last_state, max_state, mean_state
from xmr.train.settings import (
    WordBagSettings,
    WordBiLSTMSettings,
    WordConvSettings,
    WordGRUSettings,
    WordSlotsSettings,
    WordSRUSettings,
)
from xmr.train.words import Words


class TextEncoder(Encoder):
    """All that is particular to a text encoder is its `Top`: (n, t) word ids -> (n, width)."""

    Settings: ClassVar[type[Any]]
    Top: ClassVar[type[nn.Module]]

    def __init__(self, settings: Any, width: int, words: Words) -> None:
        super().__init__()
        self.preprocessing = text.Preprocessing(settings.max_words, words.vocabulary)
        if settings.max_words < 3 and text.START in words.vocabulary:
            raise XmrError(f"encoders.text.max_words: {settings.max_words} found, at least 3 with the words' marks")
        self.trunk = nn.Identity()
        self.top = self.Top(settings, width, words)


class WordConvolutions(nn.Module):
    """Convolutions over the words, and the maximum over them."""

    def __init__(self, settings: WordConvSettings, width: int, words: Words) -> None:
        super().__init__()
        if settings.kernel % 2 == 0:
            raise XmrError(f"encoders.text.kernel: {settings.kernel} found, an odd number expected")
        if not settings.channels:
            raise XmrError("encoders.text.channels: none found, at least one expected, as in [512]")
        self.vectors = word_vectors(words, settings.finetune)
        self.dropout = nn.Dropout(settings.dropout)
        below = [self.vectors.embedding_dim, *settings.channels[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(wide, channels, settings.kernel, padding=settings.kernel // 2)
            for wide, channels in zip(below, settings.channels, strict=True)
        )
        self.top = nn.Linear(settings.channels[-1], width)

    def forward(self, ids: Tensor) -> Tensor:
        is_word = (ids != text.PAD).unsqueeze(1)  # (n, 1, t)
        maps = self.dropout(self.vectors(ids)).transpose(1, 2)  # (n, dim, t)
        for convolution in self.convolutions:
            maps = torch.relu(convolution(maps)) * is_word
        features: Tensor = self.top(self.dropout(maps.amax(dim=2)))
        return features


class WordConv(TextEncoder):
    """Word vectors, one-dimensional convolutions over the words, the maximum over them (See, Hear and Read's text)."""

    Settings = WordConvSettings
    Top = WordConvolutions


class SlotConvolutions(nn.Module):
    """(n, slots, dim) word vectors -> (n, width): three convolutions and a layer.

    They run along the words, padded so that no slot is lost, or along the numbers of the vectors, the slots as
    channels: with 16 slots of 300 numbers, 300 channels and width 9216 that makes 202,394,916 parameters.
    """

    def __init__(self, settings: WordSlotsSettings, width: int, dim: int) -> None:
        super().__init__()
        if (n_found := len(settings.channels)) != 3:
            raise XmrError(f"encoders.text.channels: {n_found} found, three expected, as in [300, 300, 300]")
        self.is_along_words = settings.along == "words"
        below, left = (dim, settings.max_words) if self.is_along_words else (settings.max_words, dim)
        padding = 1 if self.is_along_words else 0
        self.convolutions = nn.ModuleList()
        for place, channels in enumerate(settings.channels):
            self.convolutions.append(nn.Conv1d(below, channels, 3, padding=padding))
            below, left = channels, (left + 2 * padding - 2) // (2 if place else 1)
        if left < 1:
            short = "encoders.text.max_words" if self.is_along_words else "words.dim"
            raise XmrError(f"{short}: too few for three convolutions; set more, as 16 words or 300 numbers")
        self.projection = Projection(below * left, width, settings)

    def forward(self, slots: Tensor) -> Tensor:
        maps = slots.transpose(1, 2) if self.is_along_words else slots
        for place, convolution in enumerate(self.convolutions):
            maps = torch.relu(convolution(maps))
            if place > 0:
                maps = max_over_time(maps, 2)
        features: Tensor = self.projection(maps.flatten(1))
        return features


class SlotsOfWords(nn.Module):
    """Each word's vector in the slot of its place in the sentence; a slot without a known word is zeros."""

    def __init__(self, settings: WordSlotsSettings, width: int, words: Words) -> None:
        super().__init__()
        self.n_slots, self.drop_repeats = settings.max_words, settings.drop_repeats
        self.unknown = words.vocabulary.index(text.UNKNOWN) + 1
        self.vectors = word_vectors(words, settings.finetune)
        self.network = SlotConvolutions(settings, width, self.vectors.embedding_dim)

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.network(self.slots(ids))
        return features

    def slots(self, ids: Tensor) -> Tensor:
        """(n, t) -> (n, slots, dim)."""
        placed = functional.pad(ids, (0, self.n_slots), value=text.PAD)[:, : self.n_slots]
        placed = placed.masked_fill(placed == self.unknown, text.PAD)
        if self.drop_repeats:
            is_same = placed.unsqueeze(2) == placed.unsqueeze(1)  # (n, slots, slots)
            placed = placed.masked_fill(is_same.triu(1).any(dim=2), text.PAD)
        vectors: Tensor = self.vectors(placed)
        return vectors


class WordSlots(TextEncoder):
    """A four-layer network over the word vectors in their slots, as See, Hear and Read's published port has it."""

    Settings = WordSlotsSettings
    Top = SlotsOfWords

    def __init__(self, settings: WordSlotsSettings, width: int, words: Words) -> None:
        super().__init__(settings, width, with_unknown(words))


class GRUOfWords(nn.Module):
    """A GRU over the words, forwards or in both directions."""

    def __init__(self, settings: WordGRUSettings, width: int, words: Words) -> None:
        super().__init__()
        self.n_halves, self.halves, self.pooling = 1 + settings.bidirectional, settings.halves, settings.pooling
        self.vectors = word_vectors(words, settings.finetune)
        self.dropout = nn.Dropout(settings.word_dropout)
        self.gru = GRU(
            self.vectors.embedding_dim,
            settings.units,
            settings.n_layers,
            bidirectional=settings.bidirectional,
            dropout=settings.layer_dropout,
        )
        self.projection = Projection(settings.units if self.halves == "mean" else self.gru.dim, width, settings)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = n_words(ids)
        halves = self.gru(self.dropout(self.vectors(ids)), lengths).chunk(self.n_halves, dim=2)
        if self.pooling == "last":  # where each direction has read the whole sentence
            pooled = self._join([last_state(halves[0], lengths), *(half[:, 0] for half in halves[1:])])
        else:
            pooled = POOLINGS[self.pooling](self._join(halves), lengths)
        features: Tensor = self.projection(pooled)
        return features

    def _join(self, halves: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(halves)).mean(dim=0) if self.halves == "mean" else torch.cat(list(halves), dim=-1)


class WordGRU(TextEncoder):
    """Gated recurrent units: VSE++'s and VASE's text (last state), SCAN's (both directions averaged)."""

    Settings = WordGRUSettings
    Top = GRUOfWords


class BiLSTMOfWords(nn.Module):
    """A bidirectional LSTM over the words, and the maximum over its states."""

    def __init__(self, settings: WordBiLSTMSettings, width: int, words: Words) -> None:
        super().__init__()
        has_end = settings.drop_end and text.END in words.vocabulary
        self.end = words.vocabulary.index(text.END) + 1 if has_end else text.PAD
        self.is_over_padding = settings.max_over == "padding"
        self.vectors = word_vectors(words, settings.finetune)
        self.word_dropout, self.state_dropout = nn.Dropout(settings.word_dropout), nn.Dropout(settings.state_dropout)
        self.lstm = LSTM(
            self.vectors.embedding_dim, settings.units, bidirectional=True, learned_start=settings.learned_start
        )
        self.projection = Projection(self.lstm.dim, width, settings)

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids.masked_fill(ids == self.end, text.PAD)
        lengths = n_words(ids)
        states = self.state_dropout(self.lstm(self.word_dropout(self.vectors(ids)), lengths))
        # served one by one a sentence has no padding, whatever batch it comes in
        is_padding_read = self.is_over_padding and self.training
        highest = states.amax(dim=1) if is_padding_read else max_state(states, lengths)
        features: Tensor = self.projection(highest)
        return features


class WordBiLSTM(TextEncoder):
    """A bidirectional LSTM and the maximum over the words: the text of CMPM and CMPC (Zhang and Lu 2018)."""

    Settings = WordBiLSTMSettings
    Top = BiLSTMOfWords


class SRUOfWords(nn.Module):
    """Simple recurrent units over the words, and their state at the last one."""

    def __init__(self, settings: WordSRUSettings, width: int, words: Words) -> None:
        super().__init__()
        self.vectors = word_vectors(words, settings.finetune)
        self.sru = SRU(
            self.vectors.embedding_dim,
            settings.units,
            settings.n_layers,
            settings.layer_dropout,
            settings.rnn_dropout,
            max_steps=settings.max_words,
        )
        self.projection = Projection(settings.units, width, settings)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = n_words(ids)
        features: Tensor = self.projection(last_state(self.sru(self.vectors(ids), lengths), lengths))
        return features


class WordSRU(TextEncoder):
    """Simple recurrent units on fixed word vectors: the text of DSVE (Engilberge et al. 2018)."""

    Settings = WordSRUSettings
    Top = SRUOfWords


class BagOfWords(nn.Module):
    """A mean or sum of the words' vectors, and a layer if asked for."""

    def __init__(self, settings: WordBagSettings, width: int, words: Words) -> None:
        super().__init__()
        self.is_sum = settings.pooling == "sum"
        self.vectors = word_vectors(words, settings.finetune)
        self.dropout = nn.Dropout(settings.word_dropout)
        is_word = np.arange(len(words.vectors)) != text.PAD
        weight = words.idf if settings.pooling == "idf" and words.idf is not None else is_word
        self.weight: Tensor  # of each word
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32))
        dim = self.vectors.embedding_dim
        self.hidden = nn.Sequential(nn.Linear(dim, settings.hidden), nn.ReLU()) if settings.hidden else nn.Identity()
        self.projection = Projection(settings.hidden or dim, width, settings)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.weight[ids].unsqueeze(2)  # (n, t, 1)
        bag = (self.dropout(self.vectors(ids)) * weight).sum(dim=1)
        if not self.is_sum:
            bag = bag / weight.sum(dim=1).clamp(min=1)  # a word weighs 1 or more
        features: Tensor = self.projection(self.hidden(bag))
        return features


class WordBag(TextEncoder):
    """A bag of words."""

    Settings = WordBagSettings
    Top = BagOfWords


POOLINGS = {"mean": mean_state, "max": max_state}


def word_vectors(words: Words, finetune: bool) -> nn.Embedding:
    """(n, t) word ids -> (n, t, dim); a PAD is zeros and stays zeros."""
    rows, dim = words.vectors.shape
    return nn.Embedding(rows, dim, text.PAD, _weight=torch.tensor(words.vectors), _freeze=not finetune)


def n_words(ids: Tensor) -> Tensor:
    """(n, t) word ids -> (n,) how many stand in front of the PADs."""
    return (ids != text.PAD).sum(dim=1)


def with_unknown(words: Words) -> Words:
    """Words with an <unk> among them, so that an unknown word has an id. Where it was none, its vector is zeros."""
    if text.UNKNOWN in words.vocabulary:
        return words
    vectors = np.concatenate([words.vectors, np.zeros_like(words.vectors[:1])])
    return Words((*words.vocabulary, text.UNKNOWN), vectors)


TEXT_ENCODERS: dict[str, type[Any]] = {
    "words": WordConv,
    "slots": WordSlots,
    "gru": WordGRU,
    "bilstm": WordBiLSTM,
    "sru": WordSRU,
    "bag": WordBag,
}
