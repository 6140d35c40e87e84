"""A comparison small enough for a test."""

from __future__ import annotations

from msr_enhance.data.encode import FeatureEncoder
from msr_enhance.train.arms import Setting
from msr_enhance.train.compare import compare
from msr_enhance.train.loop import Settings

QUICK = Settings(epochs=2, batch_size=64)
RATES = (0.003, 0.03)


def quick(table, store, **options):
    return compare(table, store, **{"seeds": 1, "learning_rates": RATES[:1], "settings": QUICK, **options})


def setting_of(table, split, backbone="shared_bottom"):
    return Setting(
        backbone=backbone,
        field_sizes=FeatureEncoder.fit(table, split.train).sizes,
        users=table.user_ids,
        scenarios=table.scenarios,
        training_users=table.user_ids,
    )
