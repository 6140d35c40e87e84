"""The page: one file that asks nobody for anything, and in which whatever a log says stays text."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import HOSTILE, comparison, explanation, user, write_run, write_store

import msr_enhance.report
from msr_enhance.report.page import embedded, page
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import Record

ASSETS = sorted(each for each in Path(msr_enhance.report.__file__).parent.iterdir() if each.suffix != ".py")
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)


class Elements(html.parser.HTMLParser):
    """Every element of a page with its attributes, and the text inside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside.append([])
        self.open = True

    def handle_data(self, data):
        if self.inside and self.open:
            self.inside[-1].append(data)

    def handle_endtag(self, tag):
        self.open = False

    def text(self, tag):
        return ["".join(said) for (name, _), said in zip(self.found, self.inside, strict=True) if name == tag]


@given(JSON)
def test_embedded_json_reads_back_and_cannot_end_its_element(value):
    text = embedded(value)
    assert json.loads(text) == value
    assert not set(text) & {"<", ">", "&", "\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\u200d"}


def test_embedded_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        embedded({"value": float("nan")})


def test_a_lone_surrogate_does_not_stop_a_page():
    assert b'"name":"a?b"' in page({"name": "a\ud800b"})


@pytest.fixture
def hostile(tmp_path):
    """A run whose every text tries to be markup."""
    rows = [user(at, name=f"{text} {at}", title=text, answer=text) for at, text in enumerate(HOSTILE)]
    for at, text in enumerate(HOSTILE):
        rows[at].facts["by_scenario"] = {text: {text: 2}}
        rows[at].facts["categories"] = {text: 2}
        rows[at].facts["shown"] = {text: 2}
    reason = Record("f", "failed", "p", "", {"reason": HOSTILE[0]}, 1, 0, rows[0].vector * 0)
    folder = write_store(tmp_path / HOSTILE[0].replace("/", "_"), [*rows, reason], HOSTILE)
    fields = {
        "comparison": comparison(tuple(HOSTILE), warnings=HOSTILE, provenance={"commit": HOSTILE[1]}),
        "explanations": [explanation(text, text, text) for text in HOSTILE],
    }
    return write_run(tmp_path / "run<b>", folder, KnowledgeStore.load(folder).fingerprint, **fields)


def test_hostile_texts_add_no_element(hostile, run_folder, shown):
    _, plain = shown(run_folder)
    data, text = shown(hostile)
    assert Elements(text).found == Elements(plain).found, "policy and all: the same page but for its data"
    assert data["users"]["texts"]["0"]["prompt"] == f"Prompt of user number 0: {HOSTILE[0]}."
    assert HOSTILE[0] not in text


def test_the_policy_allows_this_script_and_style_alone(run_folder, shown):
    elements = Elements(shown(run_folder)[1])
    (policy,) = [attrs["content"] for tag, attrs in elements.found if tag == "meta" and "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["require-trusted-types-for"] == "'script'", "the browser refuses markup from strings"
    assert "unsafe" not in policy
    (style,) = elements.text("style")
    data, script = elements.text("script")
    assert json.loads(data)["kind"] == "run"
    for kind, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    kinds = [attrs.get("type") for tag, attrs in elements.found if tag == "script"]
    assert kinds == ["application/json", None]


def test_nothing_leads_out_of_the_page(run_folder, shown):
    text = shown(run_folder)[1]
    assert not re.search(r"https?:|//[a-z]|url\(|@import|wss?:|fetch\(|XMLHttp|import\(", text, re.IGNORECASE)
    for tag, attrs in Elements(text).found:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "style", "srcset")], (
            tag
        )
        assert attrs.get("href", "#").startswith(("#", "data:,"))


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_assets_write_text_and_no_markup(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 300
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "srcdoc"):
        assert way not in text
    assert "\r" not in text


def test_the_same_store_gives_the_same_bytes(run_folder, shown):
    assert shown(run_folder)[1] == shown(run_folder)[1]


def test_a_page_needs_neither_torch_nor_an_extra(run_folder, tmp_path):
    probe = (
        "import sys\nfrom msr_enhance.report.write import write_report\n"
        f"write_report({str(run_folder)!r}, {str(tmp_path / 'p.html')!r})\n"
        "heavy = ('torch', 'transformers', 'sklearn', 'matplotlib', 'pandas', 'ray')\n"
        "sys.stdout.write(' '.join(name for name in heavy if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == ""
