"""The arms share everything but knowledge, the controls hold none, and test rows decide nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_run import QUICK, RATES, quick, setting_of

from msr_enhance.backbones.shared_bottom import SharedBottom
from msr_enhance.data.encode import FeatureEncoder
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.train import arms, study
from msr_enhance.train.arms import ARMS, BACKBONES, build
from msr_enhance.train.loop import Rows, fit, logits
from msr_enhance.train.metrics import auc
from msr_enhance.train.study import Study


def test_the_plain_arm_knows_no_store(table, store, tmp_path, fake_llm):
    """Trained here by hand, without a store in sight, and with another store: the same figures."""
    split = split_table(table, "scenario")
    encoder = FeatureEncoder.fit(table, split.train)

    def rows(part):
        place = table.scenario_index[part]
        inputs = {
            "fields": torch.from_numpy(encoder.encode(table, part)),
            "scenario": torch.from_numpy(place),
        }
        return Rows(inputs, torch.from_numpy(table.labels[part]), place, table.scenarios)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SharedBottom(list(encoder.sizes), 2)
    fit(model, rows(split.train), rows(split.validation), lr=RATES[0], seed=0, settings=QUICK)
    scores = logits(model, rows(split.test))
    other = KnowledgeExtractor(fake_llm("other")).extract(table, tmp_path / "other", split=split)
    for knowledge in (store, other):
        result = quick(table, knowledge, arms=["plain", "enhanced"])
        for number, name in enumerate(table.scenarios):
            here = table.scenario_index[split.test] == number
            assert result.scores["plain"][name].auc == auc(table.labels[split.test][here], scores[here])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_arm_starts_at_the_plain_models_answer(table, store, backbone):
    """No arm but concat is another model at step 0."""
    split = split_table(table, "scenario")
    setting = setting_of(table, split, backbone)
    encoder = FeatureEncoder.fit(table, split.train)
    batch = {
        "fields": torch.from_numpy(encoder.encode(table, split.test)),
        "scenario": torch.from_numpy(table.scenario_index[split.test]),
        "user": torch.from_numpy(table.user_index[split.test]),
    }
    plain = build("plain", setting, store, 5).eval()(batch)
    for arm in ("enhanced", "random", "shuffled", "learned"):
        assert torch.equal(build(arm, setting, store, 5).eval()(batch), plain), arm
    assert build("concat", setting, store, 5).eval()(batch).shape == plain.shape


def test_nobody_keeps_their_vector_when_shuffled(table, store):
    split = split_table(table, "scenario")
    setting, everyone = setting_of(table, split), torch.arange(len(table.user_ids))
    own = build("enhanced", setting, store, 0).meta["user"].table(everyone)
    seen = set()
    for seed in range(8):
        model = build("shuffled", setting, store, seed)
        others = model.meta["user"].table(everyone)
        near = torch.cdist(others, own)
        took = near.argmin(1)
        assert sorted(took.tolist()) == everyone.tolist(), "the vectors are the same ones"
        torch.testing.assert_close(near.min(1).values, torch.zeros(len(own)), atol=1e-3, rtol=0)
        assert not (took == everyone).any(), "nobody has their own"
        real = build("enhanced", setting, store, seed).meta["scenario"].table.rows
        assert torch.equal(model.meta["scenario"].table.rows, real), "scenario knowledge stays"
        seen.add(tuple(took.tolist()))
    assert len(seen) > 1, "another seed, another shuffle"


def test_random_vectors_have_the_stores_mean_and_spread(titled_log, tmp_path, fake_llm, monkeypatch):
    table = InteractionTable.from_arrays(titled_log(users=700, each=6))
    split = split_table(table, "global")
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", split=split)
    given, real = {}, arms.enhance
    monkeypatch.setattr(
        arms,
        "enhance",
        lambda backbone, knowledge, **more: given.update(knowledge) or real(backbone, knowledge, **more),
    )
    build("random", setting_of(table, split), store, 3)
    ids, noise = given["user"]
    vectors = store.vectors("user", store.known("user"))
    assert list(ids) == store.known("user")
    assert noise.shape == vectors.shape
    spread = vectors.std(axis=0)
    np.testing.assert_allclose(
        noise.mean(axis=0), vectors.mean(axis=0), atol=5 * spread.max() / len(noise) ** 0.5
    )
    np.testing.assert_allclose(noise.std(axis=0), spread, rtol=0.15)
    for column in range(vectors.shape[1]):
        correlation = np.corrcoef(noise[:, column], vectors[:, column])[0, 1]
        assert abs(correlation) < 5 / len(noise) ** 0.5, "noise says nothing of the user"


def test_learned_vectors_are_trained_for_every_user_and_start_without_knowledge(table, store):
    split = split_table(table, "scenario")
    setting, everyone = setting_of(table, split), torch.arange(len(table.user_ids))
    model = build("learned", setting, store, 0)
    vectors = model.meta["user"].table(everyone)
    assert vectors.requires_grad
    assert vectors.shape == (len(everyone), store.dim("user"))
    own = build("enhanced", setting, store, 0).meta["user"].table(everyone)
    assert not own.requires_grad
    before = vectors.detach().clone()
    encoder = FeatureEncoder.fit(table, split.train)
    place = table.scenario_index[split.train]
    inputs = {
        "fields": torch.from_numpy(encoder.encode(table, split.train)),
        "scenario": torch.from_numpy(place),
        "user": torch.from_numpy(table.user_index[split.train]),
    }
    train = Rows(inputs, torch.from_numpy(table.labels[split.train]), place, table.scenarios)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(train.inputs), train.labels).backward()
        optimizer.step()
    moved = (model.meta["user"].table(everyone) - before).abs().sum(1) > 0
    trained = torch.zeros(len(everyone), dtype=torch.bool)
    trained[table.user_index[split.train]] = True
    assert moved[trained].float().mean() > 0.9
    assert not moved[~trained].any()


def test_arms_share_rows_and_plain_all_has_the_history_too(table, store, monkeypatch):
    split, served, real = split_table(table, "scenario"), {}, study.fit
    running = []

    def watch(model, train, validation, **more):
        users = [part.inputs["user"].tolist() for part in (train, validation)]
        labels = [part.labels.tolist() for part in (train, validation)]
        served.setdefault(running[-1], []).append((users, labels, more["settings"], more["lr"], more["seed"]))
        return real(model, train, validation, **more)

    run = Study.run
    monkeypatch.setattr(study, "fit", watch)
    monkeypatch.setattr(Study, "run", lambda self, arm, *rest: running.append(arm) or run(self, arm, *rest))
    quick(table, store, seeds=2, learning_rates=RATES)
    expected = [
        [table.user_index[part].tolist() for part in (split.train, split.validation)],
        [table.labels[part].tolist() for part in (split.train, split.validation)],
    ]
    assert list(served) == list(ARMS)
    for arm, fits in served.items():
        assert [(lr, seed) for *_, lr, seed in fits[:2]] == [(RATES[0], 0), (RATES[1], 0)], "the same search"
        assert len(fits) == 3
        for users, labels, settings, *_ in fits:
            assert settings == QUICK
            assert (users[1], labels[1]) == (expected[0][1], expected[1][1])
            if arm == "plain_all":
                together = np.concatenate([split.history, split.train])
                assert sorted(users[0]) == sorted(table.user_index[together].tolist())
                assert len(users[0]) == len(split.history) + len(split.train)
            else:
                assert (users[0], labels[0]) == (expected[0][0], expected[1][0])


def test_test_rows_decide_nothing(titled_log, table, store, monkeypatch):
    """Test labels turned round: every rate, epoch and logit stays as it was."""
    split = split_table(table, "scenario")
    log = titled_log(users=25, each=24)
    log["label"][split.test] = 1 - log["label"][split.test]
    other = InteractionTable.from_arrays(log)
    epochs, real, found = [], study.fit, []

    def watch(*args, **more):
        done = real(*args, **more)
        epochs.append((done.epoch, done.history))
        return done

    monkeypatch.setattr(study, "fit", watch)
    for one in (table, other):
        runs = Study(one, store, split_table(one, "scenario"), "shared_bottom", QUICK, RATES, 2)
        for arm in ARMS:
            runs.run(arm, lambda count: None)
        found.append((runs.best, runs.logits, list(epochs)))
        epochs.clear()
    assert found[0][0] == found[1][0]
    assert found[0][2] == found[1][2]
    for arm in ARMS:
        np.testing.assert_array_equal(found[0][1][arm], found[1][1][arm])


def test_the_best_rate_on_validation_is_taken(table, store, monkeypatch):
    real, found = study.fit, {}

    def watch(*args, **more):
        done = real(*args, **more)
        found.setdefault(more["lr"], done.validation_auc)
        return done

    monkeypatch.setattr(study, "fit", watch)
    rates = (1e-5, 0.003, 0.1)
    result = quick(table, store, arms=["plain"], learning_rates=rates)
    assert set(found) == set(rates)
    assert result.learning_rates["plain"] == max(rates, key=lambda rate: found[rate])


def test_a_rate_that_diverges_loses_the_search(table, store):
    assert quick(table, store, arms=["plain"], learning_rates=(0.003, 1e30)).learning_rates["plain"] == 0.003


def test_a_machine_without_git_has_no_commit(table, store, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert quick(table, store, arms=["plain"]).provenance["commit"] is None
