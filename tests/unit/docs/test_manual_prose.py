"""README and the manual are short, plain, whole and linked."""

from __future__ import annotations

import re

from manual import EVERYTHING, FOLDER, PAGES, prose, read, sentences, words

from nearfar.models.hub.builtin import builtin_folder
from nearfar.models.reading.reader import read_recipe

NAMES = {
    "checkpoints",
    "parity",
    "api",
    "models",
    "configuration",
    "operations",
    "observability",
    "security",
    "migrating",
    "performance",
    "recipes",
    "tables",
    "contributing",
}
MOST_WORDS = 25
MOST_LINES = 200
FIRST_SCREEN = 25  # lines
# Words that the project's style doesn't use, and British spellings.
FORBIDDEN = re.compile(
    r"\b(who|whom|whose|whoever|nobody|anybody|somebody|everybody|strangers?|told|said|meant|laid|house"
    r"|(?:token|normal|quant|optim|organ)is(?:e|es|ed|ing|ation)|behaviours?|licences?|neighbours?|honours?)\b",
    re.IGNORECASE,
)


def test_the_manual_has_these_pages_in_the_package() -> None:
    assert PAGES.keys() == NAMES


def test_readme_has_at_most_200_lines() -> None:
    assert len(read("README").splitlines()) <= MOST_LINES


def test_the_first_screen_of_readme_has_the_built_in_model_s_token_limit() -> None:
    limit = read_recipe(builtin_folder()).max_tokens

    assert f"This model reads {limit} tokens of a text" in "\n".join(read("README").splitlines()[:FIRST_SCREEN])


def test_no_sentence_has_over_25_words() -> None:
    long = [
        f"{page}: {len(words(sentence))} words: {sentence}"
        for page in EVERYTHING
        for sentence in sentences(page)
        if len(words(sentence)) > MOST_WORDS
    ]

    assert [] == long


def test_no_page_uses_a_word_that_the_style_forbids() -> None:
    found = [f"{page}: {match[0]}" for page in EVERYTHING for match in FORBIDDEN.finditer(read(page))]

    assert [] == found


def test_every_page_has_one_title_and_stands_in_readme() -> None:
    titles = {page: re.findall(r"^# .+$", prose(page), re.MULTILINE) for page in EVERYTHING}

    assert [] == [page for page, found in titles.items() if len(found) != 1]
    assert [] == [page for page in PAGES if f"[{page}](src/nearfar/docs/{page}.md)" not in read("README")]


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page, file in EVERYTHING.items():
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", prose(page)):
            path, _, anchor = target.partition("#")
            found = (file.parent / path).resolve() if path else file
            if not found.is_file() or (anchor and anchor not in anchors(found.read_text(encoding="utf-8"))):
                broken.append(f"{page}: {target}")

    assert [] == broken


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_link_only_to_each_other() -> None:
    """A page is shown without its repository: by the command, and by a server."""
    outside = [
        f"{page}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", prose(page))
        if (FOLDER / target).resolve().parent != FOLDER.resolve()
    ]

    assert [] == outside
