"""What each concept sounds like: one function a concept, and the room in which all are recorded."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from xmr.train.sample.synthesis import (
    DURATION_S,
    KNOCK_S,
    N_SAMPLES,
    Wave,
    beats,
    decay,
    drift,
    knock,
    lay,
    noise,
    pluck,
    swell,
    time,
    tone,
    voice,
)

Sound = Callable[[Generator], Wave]

STRING = [1 / n for n in range(1, 12)]  # amplitudes of the harmonics of a plucked string
BRASS = [0.5, 0.8, 1, 0.9, 0.7, 0.5, 0.35, 0.2]
HAMMERED = [1 / n**2 for n in range(1, 8)]  # and of a piano's


def record(sound: Sound, rng: Generator) -> Wave:
    """One recording of a sound: in -1..1, at some loudness, before some background noise."""
    wave = sound(rng) * swell(DURATION_S, 0.003, 0.02)
    onset = int(rng.uniform(0, 0.15) * N_SAMPLES)
    wave = np.concatenate([np.zeros(onset), wave])[:N_SAMPLES]
    room = drift(rng, -1, 1, rng.uniform(1000, 10_000))
    wave = wave / wave.std() + room * 10 ** rng.uniform(-1.7, -0.4)
    return np.asarray(wave / np.abs(wave).max() * rng.uniform(0.25, 0.95))


def bee(rng: Generator) -> Wave:
    pitch = drift(rng, 0.85, 1.15, 5) * rng.uniform(160, 260)
    return tone(pitch, DURATION_S, [1, 0.9, 0.8, 0.7, 0.5, 0.5, 0.3, 0.3]) * drift(rng, 0.3, 1, 4)


def bell(rng: Generator) -> Wave:
    pitch, length = rng.uniform(350, 900), rng.uniform(0.2, 0.6)
    partials = ((0.5, 0.4), (1, 1), (1.19, 0.7), (1.5, 0.4), (2, 0.6), (2.74, 0.4), (3.76, 0.25), (5.1, 0.15))
    strike = np.asarray(sum(pluck(pitch * ratio, 1.5, length / ratio**0.5, [a]) for ratio, a in partials))
    return lay((start_s, strike) for start_s in beats(rng, rng.uniform(0.6, 1.6)))


def bird(rng: Generator) -> Wave:
    base, bend, length_s = rng.uniform(2800, 5000), rng.uniform(-0.35, 0.35), rng.uniform(0.06, 0.16)
    t = time(length_s) / length_s

    def chirp() -> Wave:
        pitch = base * rng.uniform(0.9, 1.1) * (1 + bend * np.sin(np.pi * t * rng.uniform(0.8, 2)))
        return tone(pitch, length_s) * np.sin(np.pi * t)

    return lay((start_s, chirp()) for start_s in beats(rng, length_s * rng.uniform(1.3, 2.5), sway=0.2))


def car(rng: Generator) -> Wave:
    speed = drift(rng, 45, 110, rng.uniform(0.8, 2))
    motor = voice(rng, speed, DURATION_S, (120, 300, 700), breath=0.4)
    return motor * (1 + 0.5 * tone(speed / 2, DURATION_S)) + 0.3 * noise(rng, DURATION_S, 60, 900)


def cat(rng: Generator) -> Wave:
    length_s, base = rng.uniform(0.6, 1.0), rng.uniform(420, 720)
    t = time(length_s) / length_s
    pitch = base * (1 + 0.35 * np.sin(np.pi * t**0.7))
    bright, round_ = (voice(rng, pitch, length_s, f, breath=0.05) for f in ((900, 2600), (1100, 1500)))
    meow = (bright * (1 - t) + round_ * t) * swell(length_s, 0.12, 0.3)
    return lay((start_s, meow) for start_s in beats(rng, length_s + rng.uniform(0.1, 0.5)))


def clock(rng: Generator) -> Wave:
    pitches, half_life_s = rng.uniform(1800, 4200, 2), rng.uniform(0.003, 0.008)
    times = beats(rng, 1 / rng.uniform(2, 5), start_s=0.05)
    return lay((start_s, knock(float(pitches[i % 2]), half_life_s)) for i, start_s in enumerate(times))


def cow(rng: Generator) -> Wave:
    length_s = rng.uniform(1.1, 1.7)
    t = time(length_s) / length_s
    pitch = rng.uniform(95, 160) * (0.85 + 0.3 * np.sin(np.pi * t))
    closed, open_ = (voice(rng, pitch, length_s, f, breath=0.06) for f in ((250, 700), (500, 900, 2200)))
    moo = closed * (1 - t) + open_ * t
    return lay([(rng.uniform(0, 0.2), moo * swell(length_s, 0.2, 0.3))])


def dog(rng: Generator) -> Wave:
    length_s, base = rng.uniform(0.13, 0.24), rng.uniform(180, 420)

    def bark() -> Wave:
        pitch = base * rng.uniform(0.95, 1.05) * np.linspace(1.3, 0.8, len(time(length_s)))
        throat = voice(rng, pitch, length_s, (base * 2.4, 1500, 2600), breath=0.6)
        return throat * swell(length_s, 0.015, length_s * 0.7)

    return lay((start_s, bark()) for start_s in beats(rng, rng.uniform(0.3, 0.7), sway=0.12))


def door(rng: Generator) -> Wave:
    wood, gap_s = rng.uniform(160, 340), rng.uniform(0.14, 0.24)

    def rap() -> Wave:
        knuckles = noise(rng, KNOCK_S, 300, 3000) * decay(KNOCK_S, 0.005)
        return knock(wood, 0.022) + 0.5 * knock(wood * 2.6, 0.01) + 0.06 * knuckles

    return lay((i * gap_s, rng.uniform(0.7, 1) * rap()) for i in range(int(rng.integers(2, 6))))


def drum(rng: Generator) -> Wave:
    low, step_s = rng.uniform(70, 150), rng.uniform(0.16, 0.28)
    pitch = low * (1 + 1.5 * decay(0.4, 0.02))
    thump = tone(pitch, 0.4) * decay(0.4, 0.07)
    snare = noise(rng, 0.4, 800, 9000) * decay(0.4, 0.03) * rng.uniform(0.3, 0.8)
    pattern = [True, *(rng.random(15) < 0.6)]
    hits = [i * step_s for i, is_hit in enumerate(pattern) if is_hit and i * step_s < DURATION_S]
    return lay((start_s, thump + snare * (i % 2)) for i, start_s in enumerate(hits))


def duck(rng: Generator) -> Wave:
    length_s, base = rng.uniform(0.12, 0.2), rng.uniform(190, 300)

    def quack() -> Wave:
        pitch = base * np.linspace(1.1, 0.85, len(time(length_s)))
        return voice(rng, pitch, length_s, (1150, 2100, 3000), breath=0.15) * swell(length_s, 0.02, 0.05)

    return lay((start_s, quack()) for start_s in beats(rng, length_s + rng.uniform(0.04, 0.15), sway=0.08))


def fire(rng: Generator) -> Wave:
    times = rng.uniform(0, DURATION_S, int(rng.integers(40, 100)))
    snap = noise(rng, 0.02, 1500, 8000) * decay(0.02, 0.002)
    crackle = lay((start_s, snap * rng.exponential()) for start_s in times.tolist())
    return crackle + 0.12 * noise(rng, DURATION_S, 40, 350) * drift(rng, 0.5, 1, 6)


def frog(rng: Generator) -> Wave:
    throat, pulse_s, length_s = rng.uniform(450, 1000), 1 / rng.uniform(28, 55), rng.uniform(0.25, 0.45)
    pulses = [(i * pulse_s, knock(throat, 0.006)) for i in range(int(length_s / pulse_s))]
    croak = lay(pulses)[: round(length_s / DURATION_S * N_SAMPLES)] * swell(length_s, length_s * 0.5, 0.05)
    return lay((start_s, croak) for start_s in beats(rng, length_s + rng.uniform(0.1, 0.3)))


def guitar(rng: Generator) -> Wave:
    root, chord = rng.uniform(98, 196), (1, 1.5, 2, 2.52, 3, 4)
    strings = [pluck(root * ratio, 1.2, 0.45, STRING) for ratio in chord]
    spread_s, strums = rng.uniform(0.015, 0.09), beats(rng, rng.uniform(0.5, 1.0))
    return lay((start_s + i * spread_s, string) for start_s in strums for i, string in enumerate(strings))


def helicopter(rng: Generator) -> Wave:
    blade = noise(rng, 0.12, 50, rng.uniform(250, 500)) * decay(0.12, 0.018)
    chop = lay((start_s, blade) for start_s in beats(rng, 1 / rng.uniform(9, 16)))
    turbine = tone(rng.uniform(1500, 2600) * drift(rng, 0.99, 1.01, 3), DURATION_S, [1, 0.3])
    return chop + 0.06 * turbine + 0.05 * noise(rng, DURATION_S, 200, 4000)


def kettle(rng: Generator) -> Wave:
    rise = np.linspace(rng.uniform(0.5, 0.85), 1, N_SAMPLES)
    steam = tone(rng.uniform(1500, 2400) * rise, DURATION_S, [1, 0.25, 0.15])
    flutter = 1 + 0.2 * drift(rng, -1, 1, 25)
    bubbles = lay((s, knock(rng.uniform(250, 600), 0.01)) for s in rng.uniform(0, DURATION_S, 30).tolist())
    return steam * rise**4 * flutter + 0.35 * noise(rng, DURATION_S, 1500, 8000) + 0.4 * bubbles


def keyboard(rng: Generator) -> Wave:
    def key() -> Wave:
        click = noise(rng, KNOCK_S, 2000, 7000) * decay(KNOCK_S, 0.003)
        return rng.uniform(0.5, 1) * click + 0.5 * knock(rng.uniform(350, 600), 0.0075)

    return lay((start_s, key()) for start_s in beats(rng, 1 / rng.uniform(6, 11), sway=0.4))


def owl(rng: Generator) -> Wave:
    base = rng.uniform(280, 460)

    def hoot(length_s: float) -> Wave:
        t = time(length_s) / length_s
        call = tone(base * (0.94 + 0.08 * np.sin(np.pi * t)), length_s, [1, 0.12, 0.05])
        return (call + 0.03 * noise(rng, length_s, 200, 900)) * np.sin(np.pi * t) ** 0.7

    first, gap = rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.25)
    return lay([(0, hoot(first)), (first + gap, hoot(0.2)), (first + gap + 0.27, hoot(rng.uniform(0.4, 0.7)))])


def phone(rng: Generator) -> Wave:
    pitch, rate_hz = rng.uniform(900, 1500), rng.uniform(16, 26)
    warble = np.where(tone(rate_hz, DURATION_S) > 0, pitch, pitch * 1.25)
    length_s = rng.uniform(0.35, 0.6)
    ring = tone(warble, DURATION_S, [1, 0.4, 0.3])[: len(time(length_s))] * swell(length_s, 0.01, 0.03)
    return lay((start_s, ring) for start_s in beats(rng, length_s + rng.uniform(0.15, 0.4)))


def piano(rng: Generator) -> Wave:
    root, scale = rng.uniform(200, 400), (0, 2, 4, 5, 7, 9, 11, 12)
    hammer = 0.03 * noise(rng, 1.0, 100, 2000) * decay(1.0, 0.01)

    def note(pitch: float) -> Wave:
        return pluck(pitch, 1.0, 0.3, HAMMERED) + hammer

    times = beats(rng, rng.uniform(0.2, 0.4))
    return lay((start_s, note(root * 2 ** (rng.choice(scale) / 12))) for start_s in times)


def rain(rng: Generator) -> Wave:
    times = rng.uniform(0, DURATION_S, int(rng.integers(150, 400)))
    drops = [knock(pitch, 0.0015) for pitch in rng.uniform(1500, 6000, 24).tolist()]
    patter = lay((s, rng.exponential() * drops[i % 24]) for i, s in enumerate(times.tolist()))
    return patter + rng.uniform(0.15, 0.35) * noise(rng, DURATION_S, 1000, rng.uniform(6000, 10000))


def siren(rng: Generator) -> Wave:
    sweep = tone(1 / rng.uniform(0.5, 1.4), DURATION_S)
    if rng.random() < 0.4:
        sweep = np.sign(sweep)  # two tones in turn
    pitch = rng.uniform(700, 950) * 2 ** (rng.uniform(0.2, 0.5) * sweep)
    return tone(pitch, DURATION_S, [1, 0.5, 0.4, 0.2, 0.15])


def thunder(rng: Generator) -> Wave:
    rumble = noise(rng, DURATION_S, 25, rng.uniform(110, 220)) * drift(rng, 0.2, 1, 7)
    crack = noise(rng, 0.5, 100, 3000) * decay(0.5, rng.uniform(0.03, 0.08)) * drift(rng, 0, 1, 30, 0.5)
    return rumble * decay(DURATION_S, rng.uniform(0.5, 1.0)) + lay([(0, crack)]) * rng.uniform(0.6, 1.4)


def train(rng: Generator) -> Wave:
    interval_s = 1 / rng.uniform(3, 6)
    puff = noise(rng, interval_s, 250, rng.uniform(1800, 3500)) * decay(interval_s, interval_s / 5)
    chuffs = lay((s, puff * (1.0 if i % 4 == 0 else 0.6)) for i, s in enumerate(beats(rng, interval_s)))
    if rng.random() < 0.5:
        return chuffs
    chord = np.asarray(sum(tone(rng.uniform(300, 420) * r, 0.9, [1, 0.3]) for r in (1, 1.19, 1.5)))
    return chuffs + lay([(rng.uniform(0, 1), 0.3 * chord * swell(0.9, 0.1, 0.3))])


def trumpet(rng: Generator) -> Wave:
    root, times = rng.uniform(230, 420), beats(rng, rng.uniform(0.25, 0.5))

    def blow(pitch: float, length_s: float) -> Wave:
        vibrato, press = pitch * (1 + 0.006 * tone(6, length_s)), swell(length_s, 0.08, 0.06)
        brass = tone(vibrato, length_s, BRASS) * press + tone(vibrato, length_s, [1, 0.5, 0.2]) * (1 - press)
        return brass * swell(length_s, 0.03, 0.05)

    return lay((s, blow(root * rng.choice([1, 1.25, 1.5, 2]), float(times[1]) * 0.9)) for s in times)


def wave(rng: Generator) -> Wave:
    crest_s, t = rng.uniform(0.4, 1.4), time()
    rise = np.exp(-(((t - crest_s) / rng.uniform(0.3, 0.5)) ** 2))
    deep = noise(rng, DURATION_S, 60, 700) * (0.3 + rise)
    spray = noise(rng, DURATION_S, 800, 5000) * np.roll(rise, N_SAMPLES // 12) ** 2
    return np.asarray(deep + spray * rng.uniform(0.6, 1.2))


def whistle(rng: Generator) -> Wave:
    length_s = rng.uniform(0.25, 0.9)
    pea = tone(rng.uniform(22, 42), length_s)
    blast = tone(rng.uniform(2200, 3400) * (1 + 0.03 * pea), length_s, [1, 0.15]) * (1 + 0.45 * pea)
    blast = (blast + 0.1 * noise(rng, length_s, 2000, 6000)) * swell(length_s, 0.02, 0.04)
    return lay((start_s, blast) for start_s in beats(rng, length_s + rng.uniform(0.1, 0.3)))


def wind(rng: Generator) -> Wave:
    gusts = [(rng.uniform(250, 450), 1.0), (rng.uniform(500, 800), 0.6), (rng.uniform(900, 1300), 0.35)]
    howls = (
        amplitude * drift(rng, -1, 1, 60) * tone(pitch * drift(rng, 0.75, 1.25, 2), DURATION_S) * drift(rng, 0.2, 1, 2)
        for pitch, amplitude in gusts
    )
    return np.asarray(sum(howls)) + 0.15 * noise(rng, DURATION_S, 100, 1500)
