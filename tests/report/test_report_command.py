"""`msr-enhance report`: a page on the disk, its size on stderr, one JSON object with --json."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from msr_enhance.cli.app import app


def call(*words, code=0):
    result = CliRunner().invoke(app, ["report", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_a_page_of_a_store(store, tmp_path):
    page = tmp_path / "report.html"
    said = call(store, "--out", page)
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert said.stdout == f"{page}\n"
    size = f"{page.stat().st_size / 1e6:.2f} MB"
    assert f"{size}, 40 users, prompts and answers of 40" in said.stderr
    assert "personal data" in said.stderr


def test_a_page_of_a_run_as_json(run_folder, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("an older one")
    said = call(run_folder, "--out", page, "--json", "--users", 5, "--points", 20)
    assert json.loads(said.stdout) == {
        "path": str(page),
        "bytes": page.stat().st_size,
        "users": 40,
        "listed": 20,
        "texts": 5,
        "scenarios": 3,
        "comparison": True,
    }
    assert "20 of 40 users" in said.stderr


def test_without_texts_nothing_is_said_of_personal_data(store, tmp_path):
    said = call(store, "--out", tmp_path / "report.html", "--no-texts")
    assert "personal data" not in said.stderr
    assert "prompts and answers of 0" in said.stderr


def test_mistakes_have_their_exit_codes(store, tmp_path):
    assert "report.html" in call(store, "--out", tmp_path / "no" / "report.html", code=3).stderr
    assert "error" in call(tmp_path, "--out", tmp_path / "report.html", code=6).stderr
    call(store, "--out", tmp_path / "report.html", "--points", 0, code=2)
