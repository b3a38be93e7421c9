"""500 texts that vary in everything that has broken a server before: length, script, whitespace, control characters."""

from __future__ import annotations

import random

ODD = [
    " ",
    ".",
    "word " * 5_000,
    "a" * 5_000,
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "🙂" * 300,
    "안녕하세요, 세계",
    "한국어 문장은 띄어쓰기가 중요합니다. " * 60,
    "\x00\x01\x02\x1f",
    "tab\tline\nreturn\rbell\x07",
    "e\u0301 and \u00e9",
    "\u200b\u200d\ufeff",
    "مرحبا بالعالم",
    "你好，世界。" * 40,  # noqa: RUF001 — the comma is intended
    "[CLS] a [SEP] b [MASK] [PAD] [UNK]",
    '{"json": ["inside", null, 1e9]}',
    "<script>alert('x')</script>",
    "ALL CAPS AND small",
    "1234567890 " * 100,
    "\u202eright to left",
    "ﬁ ligature ① ½ Ⅷ",
    "   leading and trailing   ",
    "\n\n\n",
    "z̸̢̛a̶l̷g̵o̸",
    "\U0001f468\u200d",
]
_WORDS = [
    "river",
    "stone",
    "engine",
    "quiet",
    "market",
    "paper",
    "lantern",
    "gather",
    "velvet",
    "signal",
    "harbour",
    "meadow",
    "circuit",
    "ancient",
    "copper",
    "whisper",
    "theory",
    "garden",
    "falcon",
    "window",
    "season",
    "bridge",
    "silver",
    "thunder",
    "journey",
    "letter",
    "mirror",
    "ocean",
    "planet",
    "shadow",
    "Übermaß",
    "naïve",
]


def varied_texts(count: int = 500, seed: int = 7) -> list[str]:
    """Return the odd texts, then sentences of 1 to 400 words, most of them short."""
    rng = random.Random(seed)  # noqa: S311 — text, not secrets
    texts = list(ODD)
    while len(texts) < count:
        words = min(400, max(1, round(rng.lognormvariate(2.5, 1.0))))
        texts.append(" ".join(rng.choice(_WORDS) for _ in range(words)))
    return texts
