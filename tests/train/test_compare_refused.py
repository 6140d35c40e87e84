"""What `compare()` refuses before it trains."""

from __future__ import annotations

import numpy as np
import pytest
from small_run import quick

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, StoreError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter
from msr_enhance.train import study


def test_a_store_without_scenarios_is_refused(table, store, tmp_path):
    writer = StoreWriter.open(tmp_path / "half", store.provenance)
    writer.append("user", [store.record("user", user) for user in store.ids("user")])
    with pytest.raises(StoreError, match=r"lacks the scenario level; extract it again"):
        quick(table, KnowledgeStore.load(tmp_path / "half"))


def test_a_store_without_texts_is_refused_before_training(table, store, tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("trained first")

    monkeypatch.setattr(study, "fit", never)
    store.save(tmp_path / "bare", texts=False)
    with pytest.raises(StoreError, match="without texts"):
        quick(table, KnowledgeStore.load(tmp_path / "bare"))


def test_a_scenario_called_mean_is_refused(titled_log, store):
    """Every table has a column of that name, and one of the two figures would be lost."""
    log = titled_log(users=25, each=24)
    log["scenario"] = np.where(log["scenario"] == "feed", "mean", "shop").astype(object)
    with pytest.raises(DataError, match=r"called 'mean'.*Rename it"):
        quick(InteractionTable.from_arrays(log), store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "stare"}, r"backbone 'stare' is not known; allowed: 'star'.*--backbone star"),
        ({"arms": ["enhanced", "shufled"]}, r"arm 'shufled' is not known; allowed: 'shuffled'"),
        ({"seeds": 0}, r"0 seeds.*one or more"),
        ({"learning_rates": ()}, r"learning rates \[\].*one or more"),
        ({"learning_rates": (0.01, -0.01)}, r"-0.01.*allowed.*above 0"),
        ({"learning_rates": (float("nan"),)}, r"nan.*allowed"),
    ],
)
def test_a_bad_request_is_refused(table, store, options, message):
    with pytest.raises(DataError, match=message):
        quick(table, store, **options)
