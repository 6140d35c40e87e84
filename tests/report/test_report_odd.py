"""Names that mean something to a script, curves without end, and what the page says of itself."""

from __future__ import annotations

import pytest
from stores import comparison, explanation, user, write_run, write_store

from msr_enhance.train.comparison import Comparison
from msr_enhance.train.run import Curves

NAMES = ("__proto__", "constructor", "toString", "1", "0")
WRONG = (
    "[...document.querySelectorAll('main *')].flatMap((one) => [...one.attributes].map((held) => held.value)"
    ".concat([...one.childNodes].filter((held) => held.nodeType === 3).map((held) => held.data)))"
    ".filter((text) => /NaN|undefined|Infinity|native code|\\[object/.test(text))"
)


def test_names_of_a_script_are_names(opened, tmp_path):
    """No difference is measured where no AUC is defined, and nothing else may stand in its place."""
    rows = [user(at, name=name) for at, name in enumerate(NAMES)]
    for row in rows:
        row.facts.update(shown={row.id: 2}, categories={row.id: 2}, by_scenario={row.id: {row.id: 2}})
    folder = write_store(tmp_path / "store", rows, NAMES)
    figures = comparison(NAMES, arms=("plain", "enhanced", "constructor")).model_dump()
    for arm in figures["gaps"]:
        for name in NAMES[:3]:
            del figures["gaps"][arm][name]
            figures["scores"][arm][name]["auc"] = None
    told = [explanation(name) for name in (*NAMES, 2**63 - 1)]
    fields = {"comparison": Comparison(**figures), "explanations": told}
    browser = opened(write_run(tmp_path / "run", folder, "", **fields))
    for kind in (0, 1):
        browser.run(f"document.querySelectorAll('#auc .switch button')[{kind}].click()")
        browser.frames()
        assert browser.run(WRONG) == []
    cells = browser.run(
        "[...document.querySelectorAll('#auc table')].at(-1).querySelectorAll('tbody tr')[0].innerText"
    )
    assert cells.count("–") == 3
    assert str(2**63 - 1) in browser.run("document.getElementById('explanations').innerText")
    for at, name in enumerate(NAMES):
        browser.run(f"document.querySelector('#user-{at}').click()")
        assert browser.run("document.querySelector('#person h3').innerText") == name


def test_curves_of_many_epochs_are_drawn(opened, tmp_path):
    folder = write_store(tmp_path / "store", [user(0)])
    long = [[0.5 + 0.1 * (epoch % 3) for epoch in range(80_000)] for _ in range(2)]
    browser = opened(write_run(tmp_path / "run", folder, "", curves=Curves(validation_auc={"plain": long})))
    assert browser.run("document.querySelectorAll('#training svg path').length") == 3


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (0, "the ids of 9 users and answers of 2, in its explanations: treat it as personal data"),
        (1, "prompts and answers of 1 user, and in its explanations answers of 1 more: treat it"),
        (9, "prompts and answers of 9 users: treat it as personal data"),
    ],
)
def test_a_page_says_whose_answers_it_holds(opened, tmp_path, users, said):
    folder = write_store(tmp_path / "store", [user(at) for at in range(9)])
    run = write_run(tmp_path / "run", folder, "", explanations=[explanation(0), explanation(5)])
    browser = opened(run, users=users)
    assert said in browser.run("document.getElementById('privacy').innerText")
