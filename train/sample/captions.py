"""Captions: sentences that say what a scene shows (the thing, its size, colour, place and background)."""

from numpy.random import Generator

from xmr.train.sample.concepts import CONCEPTS
from xmr.train.sample.scene import Scene

COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald"),
    "turquoise": ("turquoise", "teal"),
    "blue": ("blue", "cobalt"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chestnut"),
    "grey": ("grey", "silver"),
    "black": ("black", "ebony"),
    "white": ("white", "ivory"),
}
SIZE_WORDS = ((0.25, ("tiny", "very small")), (0.31, ("small", "little")), (0.38, ("",)), (1, ("big", "large", "huge")))
PLACE_WORDS = {
    "top left": ("in the top left corner", "at the upper left", "up on the left"),
    "top": ("at the top", "near the upper edge"),
    "top right": ("in the top right corner", "at the upper right", "up on the right"),
    "left": ("on the left", "at the left side"),
    "": ("in the middle", "in the centre", "in the center"),
    "right": ("on the right", "at the right side"),
    "bottom left": ("in the bottom left corner", "at the lower left", "down on the left"),
    "bottom": ("at the bottom", "near the lower edge"),
    "bottom right": ("in the bottom right corner", "at the lower right", "down on the right"),
}
BACKGROUND_WORDS = {
    "plain": ("on a plain {} background", "against plain {}", "on {}"),
    "fading": ("on a {} background that fades", "on a fading {} background", "against fading {}"),
    "striped": ("on a striped {} background", "on {} stripes", "in front of {} stripes"),
    "chequered": ("on a chequered {} background", "on {} squares", "in front of {} checks"),
    "dotted": ("on a dotted {} background", "on {} with dots", "in front of {} dots"),
    "speckled": ("on a speckled {} background", "on grainy {}", "against {} speckles"),
    "horizon": ("in front of a {} horizon", "on {} ground under a {} sky", "with a {} horizon"),
}
TEMPLATES = (
    "{a} {size} {colour} {thing} {place} {background}",
    "{a} {size} {colour} {thing} {background}, {place}",
    "{a} {size} {colour} {thing} {background}",
    "{place}, {a} {size} {colour} {thing} {background}",
    "{place} there is {a} {size} {colour} {thing}",
    "{thing}: {colour}, {size}, {place}, {background}",
    "a picture of {a} {colour} {thing} {background}",
    "a drawing of {a} {size} {colour} {thing} {place}",
    "the {size} {thing} {place} is {colour}, {background}",
    "you can see {a} {size} {thing} {place}, {background}",
)


def describe(scene: Scene, rng: Generator, n_captions: int) -> list[str]:
    """Captions of one scene, each from another template."""
    templates = rng.choice(TEMPLATES, n_captions, replace=False).tolist()
    return [_sentence(template, scene, rng) for template in templates]


def _sentence(template: str, scene: Scene, rng: Generator) -> str:
    ground = _one(COLOUR_WORDS[scene.background], rng)
    if scene.tone != "full":
        ground = f"{scene.tone} {ground}"
    sentence = template.format(
        a="{a}",
        thing=_one(CONCEPTS[scene.label].words, rng),
        colour=_one(COLOUR_WORDS[scene.colour], rng),
        size=_one(next(words for limit, words in SIZE_WORDS if scene.size < limit), rng),
        place=_one(PLACE_WORDS[_place(scene)], rng),
        background=_one(BACKGROUND_WORDS[scene.pattern], rng).replace("{}", ground),
    )
    return _with_article(" ".join(sentence.replace(" ,", "").split()))


def _place(scene: Scene) -> str:
    row = "top" if scene.y < 0.42 else "bottom" if scene.y > 0.58 else ""
    column = "left" if scene.x < 0.42 else "right" if scene.x > 0.58 else ""
    return f"{row} {column}".strip()


def _with_article(sentence: str) -> str:
    before, mark, after = sentence.partition("{a} ")
    if not mark:
        return sentence
    return f"{before}{'an' if after[0] in 'aeiou' else 'a'} {after}"


def _one(words: tuple[str, ...], rng: Generator) -> str:
    return words[int(rng.integers(len(words)))]
