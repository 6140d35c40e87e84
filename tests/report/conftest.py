import json
import os
import re

import browser as chromium
import pytest
from stores import mixed_users, write_run, write_store

from msr_enhance.report.write import write_report
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture
def store(tmp_path):
    """40 users of all kinds and three scenarios."""
    return write_store(tmp_path / "store", mixed_users())


@pytest.fixture
def run_folder(tmp_path, store):
    return write_run(tmp_path / "run", store, KnowledgeStore.load(store).fingerprint)


@pytest.fixture
def shown(tmp_path):
    """Write a page and read back its data and its bytes."""

    def make(source, **options):
        out = tmp_path / "page.html"
        done = write_report(source, out, **options)
        text = out.read_bytes().decode()
        assert done.bytes == len(text.encode())
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
        return json.loads(data), text

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium; where there is none the test is skipped, and in CI it fails."""
    program = chromium.find()
    if program is None:
        if os.environ.get("MSR_ENHANCE_BROWSER") == "required":
            pytest.fail("no Chromium here, and MSR_ENHANCE_BROWSER says that it is required")
        pytest.skip("no Chromium here: apt-get install chromium")
    started = chromium.Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Write a page, open it, and see afterwards that it had no fault and asked nobody."""

    def open_page(source, *, texts=True, users=2_000, **look):
        out = tmp_path / "page.html"
        write_report(source, out, texts=texts, users=users)
        browser.open(out, **look)
        return browser

    yield open_page
    browser.frames()
    assert browser.errors == [], "an exception, or something the policy refused"
    assert len(browser.asked) <= 1, browser.asked
    assert all(url.startswith("file:") for url in browser.asked)
