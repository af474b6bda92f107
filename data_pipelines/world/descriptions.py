"""Writes generic captions of portraits: what this picture shows, and nothing about who it is.

A sentence form is filled with phrases for the person, the looks, the clothes, the place, the pose and the light.
Every phrase follows from the face and the shot that the picture was drawn from, so a caption is true by construction;
what a prop or a covering hides is not mentioned.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.world.faces import Face
from data_pipelines.world.shots import Shot

_PLACES = {
    "plain": ("against a {wall} wall", "in front of a plain {wall} background", "before a {wall} backdrop"),
    "gradient": ("before a soft {wall} and {accent} gradient", "against a backdrop fading from {wall} to {accent}"),
    "halo": ("before a glowing {wall} backdrop", "in a {wall} spotlight"),
    "window": ("beside a window", "in a {wall} room with a window", "near a bright window"),
    "foliage": ("among green leaves", "in front of thick foliage", "in a leafy garden"),
    "bokeh": ("before blurred lights", "with party lights behind", "in front of glowing bokeh"),
    "books": ("by a bookshelf", "in a library", "in front of shelves of books"),
    "skyline": ("in front of a city skyline", "with tall buildings behind", "above the city"),
    "sea": ("by the sea", "on a beach", "at the seaside with a sailing boat behind"),
    "mountains": ("in front of mountains", "with mountain peaks in the distance", "in the mountains"),
    "bricks": ("against a brick wall", "in front of bricks", "by a wall of bricks"),
    "sunset": ("at sunset", "before a glowing evening sky", "under a purple and orange sky"),
    "wallpaper": ("in front of patterned wallpaper", "by a {wall} patterned wall"),
    "meadow": ("in a flowering meadow", "on a green hillside", "in the fields under a few clouds"),
}  # fmt: skip
_CUTS = {
    "long straight": ("long straight {c} hair",), "long wavy": ("long wavy {c} hair", "{c} waves"),
    "long curly": ("long curly {c} hair", "{c} curls"), "bob": ("a {c} bob",),
    "fringed bob": ("a {c} bob with a fringe",),
    "pixie": ("short {c} hair", "a {c} pixie cut"), "ponytail": ("a {c} ponytail", "{c} hair in a ponytail"),
    "bun": ("a {c} bun", "{c} hair in a bun"), "space buns": ("two {c} buns",), "pigtails": ("{c} pigtails",),
    "braids": ("{c} braids", "two {c} plaits"), "afro": ("a {c} afro",), "curly": ("short curly {c} hair", "{c} curls"),
    "locs": ("{c} locs",), "buzz": ("cropped {c} hair", "a {c} buzz cut"),
    "shaved side": ("{c} hair shaved on one side",),
    "side part": ("parted {c} hair", "neat {c} hair"), "crop": ("short {c} hair",), "quiff": ("a {c} quiff",),
    "bald": ("a bald head",), "receding": ("thinning {c} hair",), "spiky": ("spiky {c} hair",),
    "slicked back": ("slicked-back {c} hair",), "curtains": ("{c} hair parted in the middle",),
    "bowl": ("a {c} bowl cut",),
    "flat top": ("a {c} flat top",), "mohawk": ("a {c} mohawk",), "top knot": ("a {c} top knot",),
    "shoulder length": ("shoulder-length {c} hair",), "headscarf": ("a {k} headscarf",), "turban": ("a {k} turban",),
    "headwrap": ("a {k} headwrap",), "beanie": ("a {k} bobble hat",), "beret": ("a {k} beret",), "cap": ("a {k} cap",),
}  # fmt: skip
_BEARDS = {
    "stubble": "stubble",
    "goatee": "a goatee",
    "short": "a short beard",
    "full": "a full beard",
    "long": "a long beard",
}
_MOUSTACHES = {"pencil": "a thin moustache", "handlebar": "a handlebar moustache", "thick": "a thick moustache"}
_EXPRESSIONS = {
    "smiling": ("smiling", "with a smile", "looking happy"),
    "laughing": ("laughing", "laughing out loud", "with a wide grin"),
    "calm": ("looking calm", "with a relaxed look"), "serious": ("looking serious", "with a stern look"),
    "surprised": ("looking surprised", "with an open mouth"), "winking": ("winking", "giving a wink"),
    "dreamy": ("with closed eyes", "eyes closed"), "smirking": ("smirking", "with a raised eyebrow"),
}  # fmt: skip
_PROPS = {
    "mug": ("behind {second} mug", "with {second} mug held high"),
    "book": ("behind {second} book", "holding up {second} book"),
    "leaves": ("half hidden by leaves", "behind dark leaves"),
}
_OPENINGS = (
    "a portrait of", "a picture of", "a photo of", "a head-and-shoulders view of", "an illustration of",
    "a profile picture of", "a snapshot of", "a drawing of", "an avatar of", "a close look at",
)  # fmt: skip
_FORMS = (
    "{opening} {person} with {looks}, {clothes}, {place}",
    "{opening} {person} with {looks} {place}",
    "{opening} {person} {clothes}, {mood}",
    "{opening} {person} {clothes} {place}, {light}",
    "{person} with {looks}, {mood}, {place}",
    "{person} {clothes} {place}",
    "{person} with {looks} {clothes}",
    "{person}, {pose}, {clothes}, {place}",
    "{place}: {person} with {looks}, {mood}",
    "{opening} {person} {place}, {pose}, {mood}",
    "{mood}, {person} with {looks} poses {place}",
    "{person} poses {place} {clothes}",
    "{opening} {person} {mood} {place}",
    "{opening} {person} with {looks}, {clothes}, {light}",
    "{place}, {person} with {looks} {clothes}",
    "{opening} {person} with {looks}, {pose}",
)


def _one(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def article(phrase: str) -> str:
    """Returns the phrase with its indefinite article."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _looks(face: Face, shot: Shot, rng: np.random.Generator) -> str:
    """Names one to three lasting traits that this picture shows."""
    cut = _one(rng, _CUTS[face.cut]).replace("{c}", face.hair_name).replace("{k}", face.covering_name)
    cut = article(cut[2:]) if cut.startswith("a ") else cut
    others = []
    if face.glasses != "none":
        others.append(_one(rng, (f"{face.frame_name} glasses", f"{face.glasses} glasses", "glasses")))
    if shot.prop == "none":
        if face.beard != "none":
            others.append(_BEARDS[face.beard])
        if face.moustache != "none":
            others.append(_MOUSTACHES[face.moustache])
    if face.freckles and shot.difficulty < 0.3:
        others.append("freckles")
    if face.earrings in ("hoops", "drops") and face.cut != "headscarf" and shot.difficulty < 0.3:
        others.append(_one(rng, ("earrings", "gold earrings")))
    kept = [others[i] for i in sorted(rng.permutation(len(others))[: int(rng.integers(0, 3))])]
    return _listed([cut, *kept])


def _clothes(shot: Shot, rng: np.random.Generator) -> str:
    colour, second, kind = shot.garment_name, shot.second_name, shot.garment
    if kind == "dungarees":
        return _one(rng, (f"in {colour} dungarees over {article(second)} top", f"wearing {colour} dungarees"))
    worn = kind if kind != "scarf" else "jumper"
    named = f"{colour} {worn}" if shot.pattern == "plain" or rng.random() < 0.3 else f"{shot.pattern} {colour} {worn}"
    with_article = article(named)
    if kind == "scarf":
        return _one(
            rng,
            (f"in {with_article} and {article(second)} scarf", f"wearing {article(second)} scarf over {with_article}"),
        )
    if kind in ("blazer", "cardigan") and rng.random() < 0.5:
        return f"in {with_article} over {article(second)} top"
    return _one(rng, (f"in {with_article}", f"wearing {with_article}", f"dressed in {with_article}"))


def _light(shot: Shot, rng: np.random.Generator) -> str:
    side = "right" if shot.light_side > 0 else "left"
    phrases = [f"lit from the {side}"]
    if shot.brightness < 0.75:
        phrases = ["in dim light", "in the dark", "in low light"]
    elif shot.warmth > 0.4:
        phrases += ["in warm light", "in golden light"]
    elif shot.warmth < -0.4:
        phrases += ["in cool light", "in bluish light"]
    if shot.noise > 18:
        phrases += ["grainy", "in a noisy picture"]
    if shot.blur > 9:
        phrases += ["out of focus", "blurred"]
    return _one(rng, phrases)


def _pose(shot: Shot, rng: np.random.Generator) -> str:
    if abs(shot.yaw) > 0.2:
        side = "right" if shot.yaw > 0 else "left"
        return _one(rng, (f"turned to the {side}", f"facing {side}"))
    if abs(shot.tilt) > 0.1:
        return _one(rng, ("head tilted", "with a tilted head"))
    if abs(shot.yaw) > 0.1:
        return f"turned slightly to the {'right' if shot.yaw > 0 else 'left'}"
    return _one(rng, ("facing the camera", "seen from the front"))


def describe(face: Face, shot: Shot, rng: np.random.Generator) -> str:
    """Writes a caption for ``face`` under ``shot``: generic, true, and one of many thousands."""
    noun = {"female": ("woman", "lady"), "male": ("man", "gentleman")}[face.gender][int(rng.random() < 0.2)]
    person = article(noun if rng.random() < 0.5 else f"{face.age} {noun}")
    place = _one(rng, _PROPS[shot.prop] if shot.prop != "none" and rng.random() < 0.6 else _PLACES[shot.backdrop])
    place = place.replace("a {wall}", article(shot.wall_name)).replace("{wall}", shot.wall_name)
    place = place.replace("{accent}", shot.accent_name).replace("{second}", article(shot.second_name))
    mouth_hidden = shot.prop in ("mug", "book")
    mood = _light(shot, rng) if mouth_hidden else _one(rng, _EXPRESSIONS[shot.expression])
    return _one(rng, _FORMS).format(
        opening=_one(rng, _OPENINGS), person=person, looks=_looks(face, shot, rng), clothes=_clothes(shot, rng),
        place=place, mood=mood, light=_light(shot, rng), pose=_pose(shot, rng),
    )  # fmt: skip
