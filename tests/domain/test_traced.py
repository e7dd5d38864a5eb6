"""What a template prints: each number has its source, and no text from a book or a portfolio becomes markup."""

from html.parser import HTMLParser

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cde_checks.card_comparison import agrees
from cde_domain.governance.traced import FILTERS, Prints, UntracedNumberError, escaped, resolve, traced

FACTS = {"evaluation": {"auc": 0.80193, "interval": [0.7695, 0.8312], "rows": 1000, "bands": [{"n": 7}, {"n": 9}]}}


def _print(template: str, facts: dict = FACTS) -> tuple[str, list[tuple[str, str]]]:
    prints = Prints()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=prints)
    environment.filters.update(FILTERS)
    return environment.from_string(template).render(traced(facts)), prints.numbers


def test_every_printed_number_is_taken_down_with_the_place_it_was_read_from() -> None:
    text, numbers = _print(
        "{{ evaluation.auc | number }}{{ evaluation.interval | span(2) }}, n = {{ evaluation.rows | thousands }}, "
        "{{ evaluation.bands | length }} bands, {{ '%.1f' | format(evaluation.auc) }}"
    )
    assert text == "0.802 (0.77 to 0.83), n = 1,000, 2 bands, 0.8"
    assert numbers == [
        ("0.802", "/evaluation/auc"),
        (" (0.77 to 0.83)", "/evaluation/interval"),
        ("1,000", "/evaluation/rows"),
        ("2", "/evaluation/bands"),
        ("0.8", "/evaluation/auc"),
    ]


@pytest.mark.parametrize("made_up", ["0.8", "evaluation.auc * 2", "evaluation.rows + 1", "'AUC 0.9'", "loop_of.index"])
def test_a_number_that_a_template_makes_up_is_refused(made_up: str) -> None:
    with pytest.raises((UntracedNumberError, jinja2.UndefinedError)):
        _print(f"{{{{ {made_up} }}}}")


def test_the_source_leads_back_to_the_value_whatever_its_name() -> None:
    facts = {"by group": {"25/30 ~ young": {"rate": 0.25}}}
    _, numbers = _print(
        "{% for name, row in facts.items() %}{{ row.rate | percent }}{% endfor %}", {"facts": facts["by group"]}
    )
    ((printed, source),) = numbers
    assert resolve({"facts": facts["by group"]}, source) == 0.25
    assert agrees(printed, 0.25)
    with pytest.raises(KeyError):
        resolve(FACTS, "/evaluation/bands/5")


@given(st.floats(-1e3, 1e3, allow_nan=False), st.sampled_from(["number", "signed", "percent", "span"]))
def test_a_printed_number_agrees_with_its_source_and_with_no_other(value: float, form: str) -> None:
    fact = [value, value] if form == "span" else value
    printed = FILTERS[form](traced({"x": fact})["x"])
    assert agrees(printed, fact)
    assert not agrees(printed, [value + 1, value] if form == "span" else value + 1)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


PIECES = (
    "<script>",
    "<b",
    ">",
    "</td>",
    "![x](y)",
    "[x](y)",
    "<x@y.z>",
    "**b**",
    "`",
    "``",
    "\\",
    "|",
    "\n",
    "\n\n",
    "# ",
    "a",
    " ",
)
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@given(HOSTILE, HOSTILE)
def test_no_text_becomes_markup_even_where_raw_html_is_allowed(first: str, second: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    page = _Tags()
    page.feed(parser.render(f"| a | b |\n|---|---|\n| x {escaped(first)} | y {escaped(second)} |\n"))
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


def test_a_script_in_a_groups_name_is_shown_as_text() -> None:
    hostile = "<script>alert(1)</script> | [x](javascript:alert(1))"
    text, _ = _print("{{ name }}", {"name": hostile})
    page = MarkdownIt("commonmark", {"html": True}).render(text)
    assert page == "<p>&lt;script&gt;alert(1)&lt;/script&gt; | [x](javascript:alert(1))</p>\n"
