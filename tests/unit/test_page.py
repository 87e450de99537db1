"""The page's files by themselves: words in both languages, colours that can be read, nothing from elsewhere."""

import json
import re
from itertools import product
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2] / "api" / "page"
SCRIPTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.js")}
INDEX = "".join((FOLDER / name).read_text("utf-8") for name in ("index.html", "docs.html"))
STYLE = "".join((FOLDER / name).read_text("utf-8") for name in ("page.css", "docs.css"))
TEXTS: dict[str, dict[str, str]] = json.loads(
    SCRIPTS["texts.js"].removeprefix("export default ").rstrip().removesuffix(";")
)
CODE = "".join(text for name, text in SCRIPTS.items() if name != "texts.js")

TEXT_COLOURS = ("text", "muted", "link", "ok", "warn", "bad")
WASHES = {"ok": "ok-wash", "warn": "warn-wash", "bad": "bad-wash"}


def test_both_languages_have_the_same_texts_with_the_same_places_in_them() -> None:
    places = {
        language: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in texts.items()}
        for language, texts in TEXTS.items()
    }
    assert places["pt"] == places["en"]


def test_every_text_that_is_asked_for_exists_and_every_one_that_exists_is_asked_for() -> None:
    asked = set(re.findall(r'data-i18n(?:-\w+)?="([^"]+)"', INDEX))
    asked |= set(re.findall(r'"([a-z]\w*(?:\.\w+)+)"', CODE)) - {"text.json"}
    asked |= set(re.findall(r'\bt\("(\w+)"', CODE))
    assert asked - set(TEXTS["en"]) == set()
    begun = set(re.findall(r"`((?:\w+\.)+)\$\{", CODE))
    begun |= {f"{prefix}." for prefix in re.findall(r'\bknown\("(\w+)"', CODE)}
    left = {key for key in TEXTS["en"] if not key.startswith(tuple(begun))} - asked
    assert left <= {"workers.none", "schedules.none"}, "texts that nobody asks for"


def test_every_part_that_the_scripts_look_for_is_on_the_page() -> None:
    looked_for = set(re.findall(r'byId\("([^"]+)"\)', CODE))
    assert looked_for - set(re.findall(r'\bid="([^"]+)"', INDEX)) == set()


def test_nothing_becomes_markup_and_nothing_comes_from_elsewhere() -> None:
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", CODE) == []
    assert re.findall(r"<script(?![^>]*src=)|<style| style=| on\w+=", INDEX) == []
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", CODE + STYLE + INDEX)
    assert {address for address in addresses if "www.w3.org" not in address} == set()


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_what_it_stands_on(scheme: int) -> None:
    colours = {
        name: pair[scheme] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
    }
    pairs = set(product(TEXT_COLOURS, ("surface", "page"))) | set(WASHES.items())
    pairs |= {
        ("text", "raised"),
        ("muted", "raised"),
        ("surface", "link"),
        ("surface", "text"),
        ("surface", "bad"),
    }
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}
    assert contrast(colours["edge"], colours["surface"]) >= 3, "the border of what can be used"


def contrast(one: str, other: str) -> float:
    """By WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
