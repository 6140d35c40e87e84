"""The result of a comparison as data: what was measured, on what, with which seeds and versions."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Gap(BaseModel):
    """An arm's AUC minus the plain model's, the same seeds paired.

    Attributes:
        mean: Mean of the paired differences.
        error_seeds: Standard error over seeds; None with one seed.
        error_users: Standard error over resampled test users, of the seed-averaged logits.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    error_seeds: float | None
    error_users: float | None


class Against(BaseModel):
    """The enhanced arm's mean AUC minus another arm's, the same seeds paired.

    Attributes:
        mean: Mean of the paired differences.
        error_seeds: Standard error over seeds; None with one seed.
        t: Of the paired t-test over seeds; None with one seed, or without any spread.
        p: Two-sided; None with `t`. It knows of seeds only: the test users are the same for all of them.
        error_users: Standard error over resampled test users, of the seed-averaged logits.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    error_seeds: float | None
    t: float | None
    p: float | None
    error_users: float | None


class Score(BaseModel):
    """One arm in one scenario.

    Attributes:
        auc: Mean over seeds; None where it is not defined.
        spread: Standard deviation over seeds; None with one seed.
        log_loss: Mean over seeds, in nats; None without test rows.
    """

    model_config = ConfigDict(frozen=True)

    auc: float | None
    spread: float | None
    log_loss: float | None


class Comparison(BaseModel):
    """Everything a comparison measured.

    Attributes:
        scenarios: Scenario names; `mean` in the tables below is over those whose AUC is defined.
        seeds: Number of seeds.
        scores: arm → scenario (and ``mean``) → score on the test rows.
        gaps: arm → scenario (and ``mean``) → difference to ``plain``.
        by_seed: arm → mean-of-scenarios AUC on the test rows, one a seed.
        against: other arm → what the enhanced arm's mean AUC is above it; empty where it was not run.
        learning_rates: arm → the rate chosen on validation rows.
        leak_probe: scenario → AUC of "positives of this scenario in the user's prompt" alone on the
            test rows: about 0.5 when a count gives no label away; above, prompts leak, or the past count
            honestly predicts. None where it is not defined.
        category_probe: The same of "share of the item's category in the user's prompt": far above 0.5
            it predicts that knowledge helps, near 0.5 that it will not.
        rows: part → number of rows; `test_rows`, `test_positives` by scenario.
        split: Why the log was divided the way it was.
        window: What the store's prompts were allowed to see.
        warnings: What a reader must know before believing the table.
        alphas: Mixing weights of the enhanced arm's first seed after training.
        coverage: Share of test rows whose user has knowledge.
        settings: Backbone, protocol, training settings, learning rates searched.
        provenance: Versions, commit and fingerprints.
        seconds: arm → wall time of all its fits.
    """

    model_config = ConfigDict(extra="forbid")

    scenarios: list[str]
    seeds: int
    scores: dict[str, dict[str, Score]]
    gaps: dict[str, dict[str, Gap]]
    by_seed: dict[str, list[float]] = Field(default_factory=dict)
    against: dict[str, Against] = Field(default_factory=dict)
    learning_rates: dict[str, float]
    leak_probe: dict[str, float | None]
    category_probe: dict[str, float | None]
    rows: dict[str, int]
    test_rows: dict[str, int]
    test_positives: dict[str, int]
    split: str
    window: dict[str, Any]
    warnings: list[str] = Field(default_factory=list)
    alphas: dict[str, float] = Field(default_factory=dict)
    coverage: float
    settings: dict[str, Any]
    provenance: dict[str, Any]
    seconds: dict[str, float]

    def auc(self) -> dict[str, dict[str, float | None]]:
        """Mean AUC by arm and scenario."""
        return {arm: {name: by[name].auc for name in self.scenarios} for arm, by in self.scores.items()}
