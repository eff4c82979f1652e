"""The card of a packed run: what it is, how it was trained, and what it was measured to do."""

from collections.abc import Mapping

from code_common.files.run_folder import STAGES
from code_common.reporting.results import with_interval

# What a card tells of the training of each stage, and in which words.
TRAINED = {
    "dataset": "data set",
    "training_images": "training images",
    "annotated_points": "annotated points in them",
    "ratio": "share of the nuclei annotated",
    "profile": "profile",
    "model": "encoder",
    "width": "width",
    "epochs": "epochs",
    "repeat": "repeat",
    "random_seed": "random seed",
    "pretrained_loaded": "first weights",
    "commit": "commit of this project",
    "torch": "PyTorch",
}
# Score of tools/score.py -> its title.
SCORES = {
    "aji": "AJI",
    "pq": "PQ",
    "pixel_f1": "pixel F1",
    "detection_f1": "detection F1",
}


def make_card(about: str, packed: Mapping, scores: Mapping[str, Mapping]) -> str:
    """The card as Markdown.

    about: what the options do not tell, Markdown that begins with a title. packed: what `pack_run`
    returns. scores: what was scored -> metrics.json of tools/score.py.
    """
    cards = {stage: packed[stage]["card"] for stage in STAGES if stage in packed}
    known = [name for name in TRAINED if any(name in card for card in cards.values())]
    trained = [
        [TRAINED[name], *(_shown(card.get(name)) for card in cards.values())] for name in known
    ]
    parts = [about.strip(), "## How it was trained", _table(["", *cards], trained)]
    if scores:
        rows = [
            [what, str(len(of["images"])), str(of["patients"]), *_scores(of)]
            for what, of in scores.items()
        ]
        titles = ["images", "tiles", "patients", *SCORES.values()]
        note = (
            "Means over the tiles; detection F1 counts all tiles together. In brackets: 95 % "
            "intervals over the patients (`tools/score.py`)."
        )
        parts += ["## Scores", note, _table(titles, rows)]
    return "\n\n".join(parts) + "\n"


def _scores(of: Mapping) -> list[str]:
    scores, interval = of["mean"] | of.get("pooled", {}), of["interval"]
    return [
        with_interval(scores[name], interval.get(name)) if name in scores else "" for name in SCORES
    ]


def _shown(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(titles: list[str], rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
