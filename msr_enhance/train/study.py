"""The fits and the figures of one comparison."""

from __future__ import annotations

import importlib.metadata
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msr_enhance.data.encode import FeatureEncoder
from msr_enhance.data.probe import ShownHistory, category_score, positives_score
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import StoreError, TrainingError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.progress import Advance
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.arms import Setting, build, groups
from msr_enhance.train.comparison import Against, Comparison, Gap, Score
from msr_enhance.train.explained import explained
from msr_enhance.train.loop import Fit, Rows, Settings, fit, logits
from msr_enhance.train.metrics import (
    ScenarioScore,
    auc,
    bootstrap_difference,
    mean_auc,
    paired_difference,
    scenario_scores,
)
from msr_enhance.train.run import Curves, RunRow
from msr_enhance.train.student import paired_test
from msr_enhance.wrap.model import EnhancedModel

Floats = npt.NDArray[np.float32]


class Study:
    """Fits of one comparison, arm by arm."""

    def __init__(
        self,
        table: InteractionTable,
        store: KnowledgeStore,
        split: Split,
        backbone: str,
        settings: Settings,
        rates: tuple[float, ...],
        seeds: int,
        meta: MetaConfig | None = None,
    ) -> None:
        self.table, self.store, self.split = table, store, split
        self.backbone, self.settings, self.rates, self.seeds = backbone, settings, rates, seeds
        self.meta = meta or MetaConfig()
        self.names = table.scenarios
        self.labels = table.labels[split.test]
        self.place = table.scenario_index[split.test]
        self.logits: dict[str, list[Floats]] = {}
        self._by_seed: dict[str, list[dict[str, ScenarioScore]]] = {}
        self.best: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.alphas: dict[str, float] = {}
        self.curves = Curves()
        self.explanations: list[RunRow] = []
        self._shown = self._read_shown()
        self._known = self._users_with_knowledge()
        self._narrow = self._parts(split.train)

    def _parts(self, train: npt.NDArray[np.int64]) -> tuple[Setting, Rows, Rows, Rows]:
        """Setting and rows of arms that train on these rows; vocabularies come from them alone."""
        table, split = self.table, self.split
        encoder = FeatureEncoder.fit(table, train)
        users = np.asarray(table.user_ids, dtype=object)
        setting = Setting(
            backbone=self.backbone,
            field_sizes=encoder.sizes,
            users=table.user_ids,
            scenarios=self.names,
            training_users=list(users[np.unique(table.user_index[split.train])]),
            meta=self.meta,
        )
        fitted, chosen, scored = (self._rows(encoder, part) for part in (train, split.validation, split.test))
        return setting, fitted, chosen, scored

    def _rows(self, encoder: FeatureEncoder, rows: npt.NDArray[np.int64]) -> Rows:
        place = self.table.scenario_index[rows]
        inputs = {
            "fields": torch.from_numpy(encoder.encode(self.table, rows)),
            "scenario": torch.from_numpy(place),
            "user": torch.from_numpy(self.table.user_index[rows]),
        }
        return Rows(inputs, torch.from_numpy(self.table.labels[rows]), place, self.names)

    def run(self, arm: str, advance: Advance) -> None:
        """Search the learning rate at seed 0, then run the other seeds at the chosen rate."""
        started = time.perf_counter()
        setting, train, validation, test = self._narrow
        if arm == "plain_all":
            together = np.concatenate([self.split.history, self.split.train])
            setting, train, validation, test = self._parts(together)

        def one(rate: float, seed: int) -> tuple[Fit, Floats, Any]:
            model = build(arm, setting, self.store, seed)
            settings, alphas = self.settings, model.alphas if isinstance(model, EnhancedModel) else None
            shares = partial(groups, meta_factor=settings.meta_factor, weight_decay=settings.weight_decay)
            done = fit(
                model, train, validation, lr=rate, seed=seed, settings=settings, groups=shares, alphas=alphas
            )
            advance(1)
            return done, logits(model, test), model

        searched, diverged = {}, []
        for rate in self.rates:
            try:
                searched[rate] = one(rate, 0)
            except TrainingError as error:  # a rate that diverges is a rate not to choose
                diverged.append(f"{rate:g}: {error}")
        if not searched:
            raise TrainingError(f"Arm {arm} diverged at every learning rate. {diverged[0]}")
        self.best[arm] = max(searched, key=lambda rate: searched[rate][0].validation_auc)
        done, first, model = searched[self.best[arm]]
        fits, self.logits[arm] = [done], [first]
        if arm == "enhanced":
            self.alphas = model.alphas()
            self.explanations = explained(model, self.table, self.split.test, test.inputs, self.store)
        for seed in range(1, self.seeds):
            done, scored, _ = one(self.best[arm], seed)
            fits.append(done)
            self.logits[arm].append(scored)
        self.curves.validation_auc[arm] = [done.history for done in fits]
        if arm == "enhanced":
            self.curves.alpha.update({level: [done.alphas[level] for done in fits] for level in done.alphas})
        self._by_seed[arm] = [
            scenario_scores(self.labels, values, self.place, self.names) for values in self.logits[arm]
        ]
        self.seconds[arm] = round(time.perf_counter() - started, 2)

    def result(self, warnings: list[str]) -> Comparison:
        """Scores, differences and probes as data."""
        split, table = self.split, self.table
        positives = {
            name: int(self.labels[self.place == number].sum()) for number, name in enumerate(self.names)
        }
        return Comparison(
            scenarios=list(self.names),
            seeds=self.seeds,
            scores={arm: self._scores(arm) for arm in self.logits},
            gaps={arm: self._gaps(arm) for arm in self.logits if arm != "plain"},
            by_seed={arm: self._means(arm) for arm in self.logits},
            against=self._against(),
            learning_rates=self.best,
            leak_probe=self._probe(positives_score(table, split.test, self._shown)),
            category_probe=self._probe(category_score(table, split.test, self._shown)),
            rows={part: len(getattr(split, part)) for part in ("history", "train", "validation", "test")},
            test_rows={name: int((self.place == number).sum()) for number, name in enumerate(self.names)},
            test_positives=positives,
            split=split.reason,
            window=self.store.provenance.window,
            warnings=warnings,
            alphas=self.alphas,
            coverage=float(self._known[table.user_index[split.test]].mean()),
            settings={
                "backbone": self.backbone,
                "protocol": split.protocol,
                "split": split.kind,
                "learning_rates": list(self.rates),
                "meta": self.meta.model_dump(),
                **self.settings.__dict__,
            },
            provenance={
                "store": self.store.fingerprint,
                "llm": self.store.provenance.identity.get("llm"),
                "log": table.fingerprint(),
                "commit": _commit(),
                "versions": {
                    name: importlib.metadata.version(name)
                    for name in ("msr-enhance", "torch", "numpy", "polars")
                },
            },
            seconds=self.seconds,
        )

    def _aucs(self, arm: str, name: str) -> list[float]:
        """AUC of each seed; empty where the test rows have one class, which is so for every seed."""
        return [value for one in self._by_seed[arm] if (value := one[name].auc) is not None]

    def _scores(self, arm: str) -> dict[str, Score]:
        seeds = self._by_seed[arm]
        scores = {}
        for name in self.names:
            aucs = self._aucs(arm, name)
            scores[name] = Score(
                auc=float(np.mean(aucs)) if aucs else None,
                spread=float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None,
                log_loss=_mean([one[name].log_loss for one in seeds]),
            )
        means = self._means(arm)
        scores["mean"] = Score(
            auc=float(np.mean(means)),
            spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
            log_loss=_mean([one[name].log_loss for one in seeds for name in self.names if one[name].rows]),
        )
        return scores

    def _gaps(self, arm: str) -> dict[str, Gap]:
        gaps = {}
        for number, name in enumerate(self.names):
            if not (aucs := self._aucs(arm, name)):
                continue
            here = self.place == number
            pair = paired_difference(aucs, self._aucs("plain", name))
            error = self._users_error(arm, "plain", here)
            gaps[name] = Gap(mean=pair.mean, error_seeds=pair.error, error_users=error)
        pair = paired_difference(self._means(arm), self._means("plain"))
        error = self._users_error(arm, "plain", slice(None), strata=self.place)
        gaps["mean"] = Gap(mean=pair.mean, error_seeds=pair.error, error_users=error)
        return gaps

    def _against(self) -> dict[str, Against]:
        found: dict[str, Against] = {}
        for arm in self.logits if "enhanced" in self.logits else ():
            if arm != "enhanced":
                test = paired_test(self._means("enhanced"), self._means(arm))
                error = self._users_error("enhanced", arm, slice(None), strata=self.place)
                found[arm] = Against(
                    mean=test.mean, error_seeds=test.error, t=test.t, p=test.p, error_users=error
                )
        return found

    def _means(self, arm: str) -> list[float]:
        """Mean-of-scenarios AUC of each seed."""
        return [mean_auc(one) for one in self._by_seed[arm]]

    def _users_error(self, arm: str, other: str, rows: Any, **more: Any) -> float | None:
        """Standard error over test users of two arms' difference, by averaged logits; None if undefined."""
        ours, theirs = (np.mean(self.logits[name], axis=0)[rows] for name in (arm, other))
        users = self.table.user_index[self.split.test][rows]
        error = bootstrap_difference(self.labels[rows], ours, theirs, users, seed=0, **more)
        return None if np.isnan(error) else error

    def _users_with_knowledge(self) -> npt.NDArray[np.bool_]:
        known = set(self.store.known("user"))
        has = np.array([name in known for name in self.table.user_ids])
        if not has.any():
            raise StoreError(
                f"The store knows none of this log's {len(has):,} users (log: {self.table.user_ids[:3]}, "
                f"store: {list(self.store.known('user'))[:3]}); extract it from this log."
            )
        return has

    def _read_shown(self) -> ShownHistory:
        """What the prompts of the store showed of each user."""
        try:
            facts = {name: self.store.record("user", name).facts for name in self.store.known("user")}
        except StoreError as error:
            raise StoreError(
                f"{error} The leak probe reads the facts of the prompts; compare with the store as extracted."
            ) from error
        return ShownHistory(
            counts={name: one.get("shown", {}) for name, one in facts.items()},
            categories={name: one.get("categories", {}) for name, one in facts.items()},
        )

    def _probe(self, scores: npt.NDArray[Any]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for number, name in enumerate(self.names):
            here = self.place == number
            value = auc(self.labels[here], scores[here]) if here.any() else float("nan")
            found[name] = None if np.isnan(value) else float(value)
        if all(value is None for value in found.values()):
            raise TrainingError("No scenario has both labels among its test rows; write another --split.")
        return found


def _mean(values: list[float]) -> float | None:
    """Of log-losses; None where one is not defined, for want of rows."""
    return None if not values or np.isnan(values).any() else float(np.mean(values))


def _commit() -> str | None:
    """Commit of the checkout this package runs from, if it runs from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    call = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # a checkout on a machine without git
        return None
    return done.stdout.strip() or None
