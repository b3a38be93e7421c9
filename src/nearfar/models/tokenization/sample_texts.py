"""Texts made to differ that a model is tried on before it serves: one character to over its limit, several scripts."""

from __future__ import annotations

QUERIES = (
    "How do plants make food from sunlight?",
    "train to Cologne delayed",
    "7",
    "机器学习是什么?",
)
# Short ones first: of a large model only the first ones are computed.
TEXTS = (
    "ready",
    "stock prices fell",
    ".",
    "How do plants make food from sunlight?",
    "a",
    "He parked the car behind the station and walked the rest of the way in the rain.",
    "机器学习模型把一句话变成一个向量。",
    "?!",
    "Photosynthesis turns light, water and carbon dioxide into sugar in green leaves.",
    "7",
    "🙂",
    "def mean(values: list[float]) -> float: return sum(values) / len(values)",
    "Der Zug nach Köln fährt heute wegen Bauarbeiten erst um 17:45 Uhr von Gleis 9 ab.",
    "مرحبا بالعالم",
    "The train to Cologne leaves an hour late.",
    "x",
    "La pluie a cessé au petit matin, et le marché s'est rempli de monde.",
    "...",
    "Plants make their food from sunlight by photosynthesis.",
    "שלום עולם",
    # The 21st, since every fourth text is also run packed: ESM scales a whole batch by the masks in it.
    "[MASK] </s> <|endoftext|> [SEP] of the text itself",
    "Сервер отвечает на запросы быстрее, когда тексты одной длины идут вместе.",
    "—",
    "한국어 문장도 있다.",
    "THE QUICK BROWN FOX",
    "naïve café, Übermaß, ﬁne, Ⅷ, ½, e\u0301",
    "  two  spaces,\ta tab,\nand a second line  ",
    "3.14159 2718 0x1F 1e-9 +49 221 1234567",
    "https://example.org/a/b?c=d&e=%20#f",
    "👩‍👩‍👧 🇩🇪 ✈️ 🤷🏽‍♀️",
    "हिन्दी में एक वाक्य",
    "no no no no no no no no",
    "Sunlight.",
    "what?",
    "Antidisestablishmentarianism",
    '{"key": [1, 2, {"b": null}]}',
    (
        "The committee met on Tuesday to consider the report, which had been delayed twice. Its members agreed on"
        " the findings but not on what should follow from them; after three hours they asked for a shorter "
        "version, with the figures for each region set side by side, and adjourned until the following week."
    ),
    (
        "When the lake froze, the children of the village were given a day without school. They carried benches "
        "onto the ice, lit a fire in an iron basket, and skated in wide circles until it was dark. Older people "
        "stood on the shore with their hands in their sleeves and spoke of the winter in which a cart and two "
        "horses had crossed to the other side. No one measured the ice; it was enough that the smith had walked "
        "out on it with his hammer, struck it three times, and come back nodding. By March it groaned at night, "
        "by April it was gone, and the boats were upside down on the grass, their seams black with fresh tar, "
        "waiting to be turned over."
    ),
)
# A model is tried on so many at least.
MIN_SAMPLES = 12
# Over the limit of most encoders, and over what was tried of positions in any model.
LONG = " ".join([*TEXTS[-2:], *TEXTS[-2:], *TEXTS[-2:]])
# Tokens × parameters that trying a model may take: the built-in model gets all texts, one of 300 million a third of
# the short ones. A choice: half a second on one core.
_WORK, _MIN_TOKENS = 10**11, 450


def documents(at: int) -> tuple[str, ...]:
    """Return the documents for the query with this index: others for each, and one for all."""
    return (*TEXTS[at::3], TEXTS[3])


def pairs() -> list[tuple[str, str]]:
    """Return pairs of a query and a document, the last of them over the limit of most models."""
    long = [(QUERIES[0], LONG), (LONG, TEXTS[0]), (LONG, LONG)]
    return [*((query, text) for at, query in enumerate(QUERIES) for text in documents(at)), *long]


def token_budget(parameters: int) -> int:
    """Return how many tokens of samples a model of this size is tried on."""
    return max(_WORK // max(parameters, 1), _MIN_TOKENS)
