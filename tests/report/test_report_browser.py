"""The page in a browser, as a person meets it: typing, tabbing, dark, on a phone, with 25,000 users."""

from __future__ import annotations

import time

import pytest
from stores import HOSTILE, comparison, explanation, user, write_run, write_store

from msr_enhance.store.knowledge import KnowledgeStore

SECTIONS = ["overview", "auc", "map", "scenarios", "training", "users", "outliers", "explanations"]
MANY = 25_000


def text_of(browser, where):
    return browser.run(f"document.querySelector({where!r}).innerText")


def listed(browser):
    """How many users the list says it has."""
    return int(text_of(browser, "#found").split(" of ")[0].replace(",", ""))


def focused(browser):
    return browser.run("document.activeElement.id || document.activeElement.tagName")


def test_every_section_is_drawn(opened, run_folder):
    browser = opened(run_folder)
    for section in SECTIONS:
        assert len(text_of(browser, f"#{section}")) > 40, section
        assert browser.run(f"document.querySelectorAll('#nav a[href=\"#{section}\"]').length") == 1
    assert "prompts and answers of 40 users: treat it as personal data" in text_of(browser, "#privacy")
    assert browser.run("document.querySelectorAll('#auc svg').length") == 3
    assert "+0.1000" in text_of(browser, "#auc table:last-of-type, #auc")
    assert browser.run("document.querySelectorAll('#training svg path').length") >= 3
    assert browser.run("document.querySelectorAll('#explanations svg rect').length") == 4
    assert browser.run("document.querySelectorAll('#scenarios table.heat tbody td').length") == 9
    colours = browser.run(
        "(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const seen = new Set();"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) seen.add(d.slice(i, i + 3).join());"
        "return seen.size; })()"
    )
    assert colours >= 4, "points of four categories"


def test_typing_into_the_search_field_finds_users(opened, store):
    browser = opened(store)
    browser.run("document.getElementById('search').focus()")
    browser.type("number 17:")
    assert text_of(browser, "#found") == "1 of 40 users"
    browser.key("Enter")
    assert text_of(browser, "#person h3") == "17"
    assert "Prompt of user number 17: a title." in text_of(browser, "#person")
    browser.type("zzz")
    assert listed(browser) == 0
    browser.run("document.getElementById('search').select()")
    browser.type("SEA")
    assert 1 < listed(browser) < 40, "whatever the case of letters"


def test_hostile_texts_stay_texts(browser, opened, tmp_path):
    rows = [user(at, name=f"{text} {at}", title=text, answer=text) for at, text in enumerate(HOSTILE)]
    for at, text in enumerate(HOSTILE):
        rows[at].facts.update(shown={text: 2}, categories={text: 2}, by_scenario={text: {text: 2}})
    folder = write_store(tmp_path / "store", rows, HOSTILE)
    fields = {
        "comparison": comparison(tuple(HOSTILE), warnings=HOSTILE),
        "explanations": [explanation(text, text, text) for text in HOSTILE],
    }
    run = write_run(tmp_path / "<img src=x>", folder, KnowledgeStore.load(folder).fingerprint, **fields)
    opened(run)
    for at in range(len(HOSTILE)):
        browser.run(f"document.querySelector('#user-{at}').click()")
        assert HOSTILE[at].replace("\u0001", "") in browser.run(
            "document.querySelector('#person .said').textContent.replaceAll('\\u0001', '')"
        )
        browser.run("document.querySelector('#map select').selectedIndex = 0")
    for details in ("open", "closed"):
        browser.run(
            f"document.querySelectorAll('details').forEach((one) => one.open = {details == 'open':d})"
        )
        browser.frames()
    assert "owned" not in browser.run("document.title")
    assert browser.run("document.querySelectorAll('img, iframe, object, embed, form').length") == 0
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def luminance(tone):
    """Relative luminance of a colour (WCAG 2)."""
    parts = [value / 255 for value in tone[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return sum(value * weight for value, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_dark_and_light_follow_the_system_and_the_button(opened, store, dark):
    browser = opened(store, dark=dark)

    ground = "getComputedStyle(document.body).backgroundColor"

    def brightness():
        return sum(browser.run(f"{ground}.match(/\\d+/g).map(Number)"))

    assert (brightness() < 200) is dark
    shown = "[...document.querySelectorAll('.muted, .stat span'), document.body]"
    colors = browser.run(f"{shown}.map((one) => getComputedStyle(one).color.match(/\\d+/g).map(Number))")
    under = luminance(browser.run(f"{ground}.match(/\\d+/g).map(Number)"))
    lights = [luminance(color) for color in colors]
    contrast = min((max(one, under) + 0.05) / (min(one, under) + 0.05) for one in lights)
    assert contrast > 4.5, "WCAG AA for text"
    browser.run("document.getElementById('theme').click()")
    assert (brightness() < 200) is not dark
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_screen_scrolls_sideways(opened, run_folder, width):
    browser = opened(run_folder, width=width, height=780, phone=width < 500)
    assert browser.run("document.documentElement.scrollWidth") == width
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.run("[...document.querySelectorAll('.switch button')].forEach((one) => one.click())")
    browser.frames()
    assert browser.run("document.documentElement.scrollWidth") == width


def test_the_keyboard_is_enough(opened, store):
    browser = opened(store)
    browser.key("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    browser.key("Enter")
    seen = []
    while "list" not in seen and len(seen) < 60:
        browser.key("Tab")
        seen.append(focused(browser))
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none", seen[-1]
    assert "CANVAS" in seen
    assert seen.index("search") < seen.index("list")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        browser.key(key)
    browser.key("Enter")
    assert text_of(browser, "#person h3") == "2"
    browser.key("End")
    browser.key("Enter")
    assert text_of(browser, "#person h3") == "39"
    active = browser.run("document.getElementById('list').getAttribute('aria-activedescendant')")
    assert browser.run(f"document.getElementById({active!r}).getAttribute('aria-selected')") == "true"


def test_the_map_names_and_opens_users(opened, store):
    browser = opened(store)
    browser.run("document.querySelector('canvas').scrollIntoView({ block: 'center', behavior: 'instant' })")
    browser.run("document.querySelector('canvas').focus()")
    browser.key("ArrowRight")
    shown = text_of(browser, ".tip")
    browser.key("ArrowRight")
    browser.frames()
    assert text_of(browser, ".tip") != shown
    browser.key("Escape")
    left, top, width, height = browser.run(
        "(() => { const b = document.querySelector('canvas').getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]; })()"
    )
    spots = ((left + width * x / 12, top + height * y / 12) for y in range(4, 12) for x in range(2, 9))
    for spot in spots:
        browser.mouse("mouseMoved", *spot)
        if not browser.run("document.querySelector('.tip').hidden"):
            break
    named = text_of(browser, ".tip").splitlines()[0]
    browser.click(*spot)
    browser.frames()
    assert text_of(browser, "#person h3") == named
    for place in range(browser.run("document.querySelector('#map select').options.length")):
        browser.run(
            f"(() => {{ const s = document.querySelector('#map select'); s.selectedIndex = {place};"
            "s.dispatchEvent(new Event('change')); })()"
        )
        assert text_of(browser, ".legend h3") == browser.run(
            f"document.querySelector('#map select').options[{place}].text"
        )


def test_outliers_lead_to_their_users(opened, store):
    browser = opened(store)
    cards = "[...document.querySelectorAll('.kind')]"
    browser.run(
        f"{cards}.find((one) => one.innerText.startsWith('Unusual norm')).querySelector('.link').click()"
    )
    assert text_of(browser, "#person h3") == "8"
    browser.run(f"{cards}.find((one) => one.innerText.startsWith('Failed')).querySelector('.quiet').click()")
    assert listed(browser) == 2


@pytest.mark.parametrize(
    "case", ["scenarios", "users", "one", "nothing", "layers", "bare", "private", "gone"]
)
def test_whatever_is_missing_is_said(opened, tmp_path, case):
    rows = {
        "scenarios": [],
        "one": [user(0)],
        "nothing": [user(0, status="empty")],
        "layers": [user(at, layers=2) for at in range(4)],
    }.get(case, [user(at) for at in range(9)])
    folder = write_store(tmp_path / "store", rows, () if case == "users" else ("feed",))
    if case == "bare":
        KnowledgeStore.load(folder).save(tmp_path / "bare", texts=False)
        folder = tmp_path / "bare"
    if case == "gone":
        folder = write_run(tmp_path / "run", tmp_path / "away", "")
    browser = opened(folder, texts=case != "private")
    words = {
        "scenarios": ("users", "no user level"),
        "users": ("scenarios", "no scenario level"),
        "one": ("scenarios", "One scenario has knowledge"),
        "nothing": ("map", "No user has knowledge"),
        "layers": ("map", "2 layers; the last one"),
        "bare": ("users", "holds no texts"),
        "private": ("users", "without texts and ids"),
        "gone": ("main", "not where the run says"),
    }
    section, said = words[case]
    assert said in text_of(browser, f"#{section}")
    if case != "gone":
        assert "No comparison here" in text_of(browser, "#auc")
        assert "made from a store alone" in text_of(browser, "#training")


def test_it_prints(opened, run_folder):
    document = opened(run_folder).pdf()
    assert document.startswith(b"%PDF-")
    assert len(document) > 20_000


@pytest.mark.slow
def test_25_000_users_stay_fluid(opened, tmp_path):
    prompt = "A user of Harbour meets items in three scenarios and likes many of them. " * 25
    rows = [user(at, dim=8, title=prompt) for at in range(MANY)]
    folder = write_store(tmp_path / "store", rows)
    started = time.perf_counter()
    browser = opened(folder)
    drawn = browser.run("performance.getEntriesByName('shown')[0].startTime")
    browser.run("document.getElementById('search').focus()")
    browser.run(
        "const field = document.getElementById('search'); window.took = [];"
        "field.addEventListener('beforeinput', () => { window.began = performance.now(); });"
        "field.addEventListener('input', () => { window.took.push(performance.now() - window.began); })"
    )
    time.sleep(0.5)
    browser.type("number 137")
    assert 0 < listed(browser) < MANY
    took = sorted(browser.run("window.took"))
    rows_there = browser.run("document.querySelectorAll('.row').length")
    seconds = time.perf_counter() - started
    print(f"{seconds:.1f} s with writing, first render {drawn:.0f} ms, search {took} ms")
    assert rows_there < 60, "only what can be seen is there"
    # Generous for a busy machine; measured in docs/report.md.
    assert drawn < 5000
    assert took[len(took) // 2] < 50
    before = browser.run("document.getElementById('list').scrollTop")
    browser.run("document.getElementById('search').select()")
    browser.type("7")
    browser.run("document.getElementById('list').scrollTop = 100000")
    browser.frames()
    assert browser.run("document.getElementById('list').scrollTop") > before
    assert browser.run("document.querySelectorAll('.row').length") < 60
