"""A small log and a store of its history."""

from __future__ import annotations

import pytest

from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor


@pytest.fixture
def table(titled_log):
    return InteractionTable.from_arrays(titled_log(users=25, each=24))


@pytest.fixture
def store(table, tmp_path, fake_llm):
    return KnowledgeExtractor(fake_llm()).extract(
        table, tmp_path / "store", split=split_table(table, "scenario")
    )
