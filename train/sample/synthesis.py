"""Making sound: noise, tones, voices, envelopes, and clips laid along the time of one recording."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Wave = NDArray[np.float64]  # (t,) samples

SAMPLE_RATE = 22_050  # Hz
DURATION_S = 2.0
N_SAMPLES = round(SAMPLE_RATE * DURATION_S)
KNOCK_S = 0.15


def time(duration_s: float = DURATION_S) -> Wave:
    """The time of each sample, in seconds."""
    return np.arange(round(SAMPLE_RATE * duration_s)) / SAMPLE_RATE


def decay(duration_s: float, half_life_s: float) -> Wave:
    """An envelope that starts at once and halves every half_life_s."""
    return np.exp2(-time(duration_s) / half_life_s)


def swell(duration_s: float, attack_s: float, release_s: float) -> Wave:
    """An envelope that rises, stays and falls."""
    t = time(duration_s)
    return np.asarray(np.clip(np.minimum(t / attack_s, (duration_s - t) / release_s), 0, 1))


def drift(rng: Generator, low: float, high: float, rate_hz: float, duration_s: float = DURATION_S) -> Wave:
    """A random line between low and high that finds a new level rate_hz times a second."""
    t = time(duration_s)
    n_levels = int(duration_s * rate_hz) + 2
    return np.interp(t, np.arange(n_levels) / rate_hz, rng.uniform(low, high, n_levels))


def tone(frequency: float | Wave, duration_s: float, partials: Sequence[float] = (1.0,)) -> Wave:
    """A harmonic tone; frequency is a number or one value a sample, partials are the harmonics' amplitudes."""
    return _harmonics(2j * np.pi * _cycles(frequency, duration_s), partials)


def pluck(frequency: float, duration_s: float, half_life_s: float, partials: Sequence[float]) -> Wave:
    """A string struck once: harmonic n dies away n times as fast as the first."""
    return _harmonics((2j * np.pi * frequency - np.log(2) / half_life_s) * time(duration_s), partials)


def noise(rng: Generator, duration_s: float, low_hz: float, high_hz: float) -> Wave:
    """Noise of unit power between two frequencies."""
    n_samples, n_fft = _lengths(duration_s)
    frequencies = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    below, above = (low_hz / np.maximum(frequencies, 1)) ** 2, (frequencies / high_hz) ** 2
    phases = np.exp(2j * np.pi * rng.random(len(frequencies)))
    return _unit_power(np.fft.irfft(phases / (1 + below**2 + above**2), n_fft)[:n_samples])


def voice(
    rng: Generator, pitch: float | Wave, duration_s: float, formants: Iterable[float], breath: float = 0.1
) -> Wave:
    """A throat (pulses at the pitch, and breath) heard through a mouth (resonances at the formants)."""
    n_samples, n_fft = _lengths(duration_s)
    frequencies = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    mouth = sum(1 / (1 + ((frequencies - f) / (60 + 0.09 * f)) ** 2) / (1 + n) for n, f in enumerate(formants))
    throat = 1 - 2 * (_cycles(pitch, duration_s) % 1) + breath * rng.standard_normal(n_samples)
    return _unit_power(np.fft.irfft(np.fft.rfft(throat, n_fft) * mouth, n_fft)[:n_samples])


def knock(frequency_hz: float, half_life_s: float) -> Wave:
    """Something struck once: a resonance that dies away, KNOCK_S long."""
    return tone(frequency_hz, KNOCK_S) * decay(KNOCK_S, half_life_s)


def lay(clips: Iterable[tuple[float, Wave]]) -> Wave:
    """One recording with each clip mixed in from its start, in seconds; what passes the end is cut."""
    recording = np.zeros(N_SAMPLES)
    for start_s, clip in clips:
        start = round(start_s * SAMPLE_RATE)
        recording[start : start + len(clip)] += clip[: max(0, N_SAMPLES - start)]
    return recording


def beats(rng: Generator, interval_s: float, *, start_s: float = 0.0, sway: float = 0.0) -> list[float]:
    """Times in a recording, interval_s apart give or take sway of it."""
    n_beats = int((DURATION_S - start_s) / interval_s) + 1
    times = start_s + interval_s * (np.arange(n_beats) + sway * rng.uniform(-1, 1, n_beats))
    return [time_s for time_s in times.tolist() if 0 <= time_s < DURATION_S]


def _cycles(frequency: float | Wave, duration_s: float) -> Wave:
    """How many periods have passed at each sample."""
    if isinstance(frequency, np.ndarray):
        return np.cumsum(frequency) / SAMPLE_RATE
    return time(duration_s) * frequency


def _harmonics(exponent: NDArray[Any], partials: Sequence[float]) -> Wave:
    """The sum over n of partials[n - 1] * sin(n * phase), by Horner's rule on one complex exponential."""
    first = np.exp(exponent)
    total = np.zeros_like(first)
    for amplitude in reversed(partials):
        total += amplitude
        total *= first
    return np.asarray(total.imag)


def _lengths(duration_s: float) -> tuple[int, int]:
    """The samples of a duration, and the next length at which an FFT is quick."""
    n_samples = len(time(duration_s))
    return n_samples, 1 << (n_samples - 1).bit_length()


def _unit_power(wave: NDArray[Any]) -> Wave:
    return np.asarray(wave / (wave.std() + 1e-9))
