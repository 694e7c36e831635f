"""The concepts of the sample world: how each is called, coloured, drawn and heard. A new one is one line."""

from dataclasses import dataclass

from xmr.train.sample import drawings, sounds
from xmr.train.sample.drawings import Drawing
from xmr.train.sample.sounds import Sound


@dataclass(frozen=True)
class Concept:
    """One thing that is seen, heard and read."""

    words: tuple[str, ...]  # what captions call it
    draw: Drawing
    sound: Sound
    colours: tuple[str, ...] = ()  # those it may have; none: any


FUR = ("brown", "orange", "grey", "black", "white", "yellow")
WATER = ("blue", "turquoise", "green", "grey")
METAL = ("yellow", "orange", "grey", "brown", "white")

CONCEPTS: dict[str, Concept] = {
    "bee": Concept(("bee", "bumblebee", "honeybee"), drawings.bee, sounds.bee, ("yellow", "orange", "brown")),
    "bell": Concept(("bell", "handbell", "brass bell"), drawings.bell, sounds.bell),
    "bird": Concept(("bird", "songbird", "sparrow"), drawings.bird, sounds.bird),
    "car": Concept(("car", "automobile", "motor car"), drawings.car, sounds.car),
    "cat": Concept(("cat", "kitten", "tomcat"), drawings.cat, sounds.cat, FUR),
    "clock": Concept(("clock", "alarm clock", "timepiece"), drawings.clock, sounds.clock),
    "cow": Concept(("cow", "dairy cow", "calf"), drawings.cow, sounds.cow, ("brown", "black", "grey", "orange")),
    "dog": Concept(("dog", "hound", "puppy"), drawings.dog, sounds.dog, FUR),
    "door": Concept(("door", "wooden door", "front door"), drawings.door, sounds.door),
    "drum": Concept(("drum", "snare drum", "tom-tom"), drawings.drum, sounds.drum),
    "duck": Concept(("duck", "duckling", "mallard"), drawings.duck, sounds.duck, ("yellow", "white", "brown", "green")),
    "fire": Concept(("fire", "campfire", "bonfire"), drawings.fire, sounds.fire, ("red", "orange", "yellow")),
    "frog": Concept(("frog", "toad", "tree frog"), drawings.frog, sounds.frog, ("green", "turquoise", "brown")),
    "guitar": Concept(("guitar", "acoustic guitar", "six-string guitar"), drawings.guitar, sounds.guitar),
    "helicopter": Concept(("helicopter", "chopper", "rotorcraft"), drawings.helicopter, sounds.helicopter),
    "kettle": Concept(("kettle", "tea kettle", "teapot"), drawings.kettle, sounds.kettle),
    "keyboard": Concept(("keyboard", "computer keyboard", "qwerty keyboard"), drawings.keyboard, sounds.keyboard),
    "owl": Concept(("owl", "barn owl", "night owl"), drawings.owl, sounds.owl),
    "phone": Concept(("phone", "telephone", "dial phone"), drawings.phone, sounds.phone),
    "piano": Concept(("piano", "grand piano", "pianoforte"), drawings.piano, sounds.piano),
    "rain": Concept(("rain cloud", "shower of rain", "raincloud"), drawings.rain, sounds.rain, WATER),
    "siren": Concept(("siren", "siren light", "emergency light"), drawings.siren, sounds.siren),
    "thunder": Concept(("thunderbolt", "lightning bolt", "thundercloud"), drawings.thunder, sounds.thunder, METAL[:2]),
    "train": Concept(("train", "locomotive", "steam engine"), drawings.train, sounds.train),
    "trumpet": Concept(("trumpet", "horn", "bugle"), drawings.trumpet, sounds.trumpet, METAL),
    "wave": Concept(("wave", "sea wave", "breaker"), drawings.wave, sounds.wave, WATER),
    "whistle": Concept(("whistle", "referee whistle", "pea whistle"), drawings.whistle, sounds.whistle),
    "wind": Concept(("gust of wind", "breeze", "gust"), drawings.wind, sounds.wind),
}
