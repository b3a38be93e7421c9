"""A few real sentences, short to long and in several scripts, that a model is tried on before it serves."""

from __future__ import annotations

QUERY = "How do plants make food from sunlight?"
TEXTS = (
    "ready",
    "stock prices fell",
    "How do plants make food from sunlight?",
    "He parked the car behind the station and walked the rest of the way in the rain.",
    "Photosynthesis turns light, water and carbon dioxide into sugar in green leaves.",
    "def mean(values: list[float]) -> float: return sum(values) / len(values)",
    "Der Zug nach Köln fährt heute wegen Bauarbeiten erst um 17:45 Uhr von Gleis 9 ab.",
    "La pluie a cessé au petit matin, et le marché s'est rempli de monde.",
    "Сервер отвечает на запросы быстрее, когда тексты одной длины идут вместе.",
    "机器学习模型把一句话变成一个向量。",
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
