"""Chat templates are programs: each rendering has limits on its steps, memory and time."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from nearfar.models.files.chat_template import ChatTemplateError, compile_template
from nearfar.models.recipe.recipe import ChatTemplate

LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLED = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = DOUBLE %}{% endfor %}{{ n.x | length }}"
# Lists that would be written, or compared, with 10 ** 10 parts, made of a few lists that they contain again and again.
NESTED = "{% set a = ['a'] %}" + "{% set a = [a, a, a, a, a, a, a, a, a, a] %}" * 10
IN_NAMESPACES = (
    "{% set n = namespace(x=1) %}" + "{% set m = namespace(x=[n] * 100) %}{% set n = namespace(x=[m] * 100) %}" * 3
)
OUTPUT = "{% set a = 'a' * 99999 %}"
ENDLESS = [
    *[
        NESTED + use
        for use in (
            "{{ a }}",
            "{{ a ~ '' }}",
            "{{ a | string }}",
            "{{ a | tojson }}",
            "{{ a | join }}",
            "{{ a | upper }}",
            "{{ a | pprint }}",
            "{{ {'k': a} }}",
            "{{ '%s' % (a,) }}",
            "{{ '%s' | format(a) }}",
            "{{ '{}'.format(a) }}",
            "{{ 'b'.join([a | string]) }}",
            "{% if a == a[:] %}{% endif %}",
            "{% if a[:] is eq(a) %}{% endif %}",
            "{{ [a[:]] | select('equalto', a) | list }}",
            "{% if a[:] in [a] %}{% endif %}",
        )
    ],
    IN_NAMESPACES + "{{ n }}",
    OUTPUT + "{% for i in range(99999) %}{{ a }}{% endfor %}",
    OUTPUT + "{% set n = namespace(x=0) %}{% for i in range(99999) %}{% set n.x = [a[1:], n.x] %}{% endfor %}",
    "{% set a = 'aa' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
    LOOPS,
    LOOPS.replace("range(99999)", "'x' * 99999"),
    *[DOUBLED.replace("DOUBLE", twice) for twice in ("n.x + n.x", "n.x ~ n.x", "n.x * 2", "n.x.replace('a', 'aa')")],
    *[
        DOUBLED.replace("DOUBLE", twice)
        for twice in ("n.x | replace('a', 'aa')", "[n.x, n.x] | join", "'%s%s' % (n.x, n.x)")
    ],
    DOUBLED.replace("DOUBLE", "'{0}{0}'.format(n.x)"),
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10000000000) }}",
    "{{ [1] | batch(10000000000, 0) | list }}",
    "{{ {'a': [1] * 9999} | tojson(indent=99999) }}",
    "{{ ('a\\n' * 9999) | indent(99999) }}",
    "{{ lipsum(99999) }}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set x %}" + "a" * 9999 + "{% endset %}{% for i in range(99999) %}" + "b" * 9999 + "{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "a" * 2_000_000,
]
ORDINARY = {
    "{% for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}{{ '|' if not loop.last }}{% endfor %}": (
        "<user>a|<user>b"
    ),
    "{{ messages[-1].content.split('</think>')[-1].lstrip('\\n') ~ eos }}": "b</s>",
    "{% set n = namespace(k=0) %}{% for m in messages[::-1] %}{% set n.k = n.k + loop.length %}{% endfor %}{{ n.k }}": (
        "4"
    ),
    "{{ messages | map(attribute='content') | join(' | ') }}{{ '%5d' % 3 }}": "a | b    3",
    "{{ (messages | selectattr('role', 'equalto', 'user') | list | length) * 2 }}{{ '=' * 10 }}": "4==========",
    "{% set n = namespace(x=[], y={}) %}{% set n.x = [n.x, messages] %}{{ n.x | length }}{{ n.y }}{{ none == n.x }}": (
        "2{}False"
    ),
    "{{ messages[0] | tojson(indent=2) }}": '{\n  "role": "user",\n  "content": "a"\n}',
}


def render(source: str, text: str = "a") -> str:
    template = ChatTemplate(source=source, variables={"eos": "</s>"}, structured=False, keeps_suffix=True)
    return compile_template(template)([("user", text), ("user", "b")])


@pytest.mark.parametrize("source", ENDLESS, ids=lambda source: source[:60])
def test_a_template_that_takes_too_much_is_refused(source: str) -> None:
    began = time.process_time()
    tracemalloc.start()

    with pytest.raises(ChatTemplateError, match="can't be rendered"):
        render(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000_000
    assert time.process_time() - began < 8


@pytest.mark.parametrize("source", ORDINARY)
def test_an_ordinary_template_is_rendered_as_before(source: str) -> None:
    assert ORDINARY[source] == render(source)


def test_a_long_text_may_be_rendered() -> None:
    text = "{word {%9999999d " * 100_000

    assert text.strip() in render("{{ messages[0].content | trim | replace('<think>', '') }}", text)
