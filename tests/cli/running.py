"""How the tests of the command line run it, and the options that keep it quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
from typer.testing import CliRunner

from msr_enhance.cli.app import app

COMMAND = Path(sys.executable).with_name("msr-enhance")
KEYS = {"scenarios", "auc", "seeds", "leak_probe", "store"}  # issue 2, item 12
ARMS = {"plain", "enhanced", "random", "shuffled", "learned", "concat", "plain_all"}
HARBOUR = """\
name: Harbour
description: an app by the sea
scenarios:
  - name: feed
    description: posts of friends
    expert_knowledge: read at night
  - name: shop
    description: things that are bought
"""


def run(*words, code=0):
    """Run a command in this process; its result, once the exit code is right."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def the_object(result):
    """The one JSON object on stdout, and nothing else there."""
    assert result.stdout.endswith("}\n")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


FREQUENCY = ("--model", "category-frequency")
QUICK = ("--seeds", 1, "--epochs", 2, "--learning-rates", "0.01", "--batch-size", 64)


def changed(log, name="changed.csv", **columns):
    """The log with some columns replaced, or left out for None."""
    frame = pl.read_csv(log)
    for column, values in columns.items():
        frame = frame.drop(column) if values is None else frame.with_columns(pl.Series(column, values))
    path = log.with_name(name)
    frame.write_csv(path)
    return path
