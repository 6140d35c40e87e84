"""Prompts over a reader's limit lose their oldest interactions evenly per scenario, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace as Facts

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msr_enhance.data.facts import user_histories
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.budget import fit_scenarios, fit_users, kept_of_each
from msr_enhance.extract.draft import Draft
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt

NAMES = ("feed", "shop", "film")
PLATFORM = Platform.for_scenarios(NAMES)
TITLES = st.lists(st.text("ab ", max_size=12), max_size=9)
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HISTORIES = st.dictionaries(st.sampled_from(NAMES), TITLES, max_size=3)


def history(titles, totals=None, user=7):
    """A user's events; each has a number, so that one can tell which were kept."""
    events = {
        name: [
            Facts(
                text=(f"{name}{at} {title}".strip(), "even" if at % 2 else ""),
                category="even" if at % 2 else "",
                item="i",
            )
            for at, title in enumerate(each)
        ]
        for name, each in titles.items()
    }
    return Facts(
        user=user, events=events, totals=totals or {name: len(each) + 5 for name, each in titles.items()}
    )


def render(facts):
    return UserPrompt.named("default").render_facts(PLATFORM, facts)


def words(prompt):
    return len(prompt.split())


def draft_of(facts):
    return Draft(facts.user, render(facts) if any(facts.events.values()) else None)


def dropped_one_by_one(facts, render=render):
    """Every prompt on the way to one interaction: the longest list, the first of equals, loses its oldest."""
    events = {name: list(liked) for name, liked in facts.events.items()}
    while sum(map(len, events.values())):
        lost = {name: len(facts.events[name]) - len(liked) for name, liked in events.items()}
        yield (
            render(Facts(user=facts.user, events=events, totals=facts.totals)),
            {n: c for n, c in lost.items() if c},
        )
        longest = max(events, key=lambda name: len(events[name]))
        del events[longest][0]


@given(HISTORIES, st.integers(1, 140))
@SETTINGS
def test_a_prompt_loses_what_a_slow_loop_takes_out_one_by_one(fake_llm, titles, limit):
    facts = history(titles)
    before = draft_of(facts)
    (after,) = fit_users(fake_llm(limit=limit), [before], [facts], render)
    if before.prompt is None:
        assert after == before
        return
    steps = list(dropped_one_by_one(facts))
    sizes = [words(prompt) for prompt, _ in steps]
    if sizes[0] <= limit:
        assert after == before, "what fits is left alone"
        assert "dropped" not in after.prompt.facts
    elif sizes[-1] > limit:
        assert after.status == "failed"
        assert not after.asks
        assert (
            after.refused
            == f"{sizes[-1]:,} prompt tokens with one interaction, and the model takes {limit:,}"
        )
    else:
        assert after.status == "truncated"
        place = next(at for at, (prompt, _) in enumerate(steps) if prompt == after.prompt)
        prompt, lost = steps[place]
        assert place == next(at for at, size in enumerate(sizes) if size <= limit)
        assert after.prompt.facts == {**prompt.facts, "dropped": lost}


@given(st.lists(st.integers(0, 12), max_size=6), st.data())
def test_lists_are_cut_to_one_length_the_longest_first(lengths, data):
    dropped = data.draw(st.integers(0, sum(lengths)))
    left = list(lengths)
    for _ in range(dropped):
        left[left.index(max(left))] -= 1
    assert kept_of_each(lengths, dropped) == left


@given(st.lists(HISTORIES, min_size=1, max_size=5), st.integers(20, 100))
@SETTINGS
def test_the_drafts_beside_a_draft_change_nothing(fake_llm, many, limit):
    facts = [history(titles, user=number) for number, titles in enumerate(many)]
    llm = fake_llm(limit=limit)
    drafts = [draft_of(each) for each in facts]
    together = fit_users(llm, drafts, facts, render)
    alone = [fit_users(llm, [draft], [each], render)[0] for draft, each in zip(drafts, facts, strict=True)]
    assert together == alone
    assert [draft.prompt and draft.prompt.facts for draft in together] == [
        draft.prompt and draft.prompt.facts for draft in alone
    ]


def test_facts_describe_what_is_still_shown(fake_llm):
    facts = history(
        {"feed": ["a"] * 9, "shop": ["b"] * 3, "film": []}, totals={"feed": 70, "shop": 3, "film": 0}
    )
    full = words(render(facts))
    (draft,) = fit_users(fake_llm(limit=full - 14), [draft_of(facts)], [facts], render)
    shown = draft.prompt.facts
    assert shown["dropped"] == {"feed": 5}, "the short list loses nothing"
    assert shown["shown"] == {"feed": 4, "shop": 3, "film": 0}
    assert shown["total"] == {"feed": 70, "shop": 3, "film": 0}
    numbers = [int(number) for number in re.findall(r"feed(\d)", draft.prompt)]
    assert numbers == [5, 6, 7, 8], "the oldest went, the order stayed"
    assert shown["categories"] == {"even": sum(n % 2 for n in numbers) + 1}
    assert (
        sum(sum(counts.values()) for counts in shown["by_scenario"].values()) == shown["categories"]["even"]
    )


def test_instruction_and_scenario_names_stay_whole(fake_llm):
    facts = history({name: ["long title"] * 9 for name in NAMES})
    whole, least = render(facts), list(dropped_one_by_one(facts))[-1][0]
    for limit in range(words(least), words(whole)):
        (draft,) = fit_users(fake_llm(limit=limit), [draft_of(facts)], [facts], render)
        lines = draft.prompt.splitlines()
        assert [lines[0], lines[1], lines[-1]] == [whole.splitlines()[at] for at in (0, 1, -1)]
        assert [line.split(":")[0] for line in lines[2:-1]] == [f"In {name}" for name in NAMES]


def test_a_list_that_lost_everything_is_not_called_empty(fake_llm):
    facts = history({name: ["title"] * 2 for name in NAMES[:2]})
    (draft,) = fit_users(fake_llm(limit=words(render(facts)) - 7), [draft_of(facts)], [facts], render)
    assert "In feed: some." in draft.prompt
    assert "In shop: shop1 title | even." in draft.prompt
    assert "In film: nothing yet." in draft.prompt


def test_only_long_prompts_are_written_again_and_few_times(fake_llm):
    facts = [
        history({"feed": ["word " * 6] * n, "shop": ["word " * (n % 7)] * n}, user=n) for n in range(1, 60)
    ]
    drafts, counted, rendered = [draft_of(each) for each in facts], [], []
    llm = fake_llm(limit=400)
    one_by_one = llm.count_tokens
    llm.count_tokens = lambda prompts: counted.append(len(prompts)) or one_by_one(prompts)
    fitted = fit_users(llm, drafts, facts, lambda each: rendered.append(each.user) or render(each))
    long = {draft.id for draft in drafts if words(draft.prompt) > 400}
    assert {draft.id for draft in fitted if draft.status == "truncated"} == long == set(rendered)
    assert len(long) > 30
    assert max(Counter(rendered).values()) <= 8, "118 interactions, counted one by one, would be up to 117"
    assert len(counted) <= 9, "tokens are counted many prompts at a time"


def test_a_reader_without_a_limit_takes_everything(fake_llm):
    facts = history({"feed": ["a"] * 9})

    class Unlimited(fake_llm):
        prompt_limit = None

        def count_tokens(self, prompts):
            raise AssertionError("nobody needs to know")

    for llm in (fake_llm(), Unlimited()):
        assert fit_users(llm, [draft_of(facts)], [facts], render)[0].status == "ok"
        assert fit_scenarios(llm, [Draft("feed", Prompt("long " * 99))])[0].asks


def test_a_scenario_prompt_that_is_too_long_is_not_asked(fake_llm):
    drafts = [Draft("feed", Prompt("a b c")), Draft("shop", Prompt("a b c d"))]
    short, long = fit_scenarios(fake_llm(limit=3), drafts)
    assert short == drafts[0]
    assert (long.status, long.asks) == ("failed", False)
    assert long.refused == "4 prompt tokens, and the model takes 3; write shorter descriptions"


def scenario_drafts(counts, description=""):
    """A draft of each scenario, whose interactions are given."""
    notes = [{"name": name, "description": f"a place {description}"} for name in counts]
    platform = Platform.model_validate({"name": "Harbour", "scenarios": notes})
    facts = [
        Facts(name=name, interactions=count, users=3, items=2, shared_users=1, shared_items=0)
        for name, count in counts.items()
    ]
    template = ScenarioPrompt.named("default")
    return [Draft(name, template.render_facts(platform, facts, name)) for name in counts]


def test_a_long_scenario_prompt_loses_the_lines_of_the_least_used_others(fake_llm):
    counts = {"a": 50, "a (b)": 40, "feed": 70, "film": 10, "- shop": 30}
    drafts = scenario_drafts(counts)
    for draft in drafts:
        order = sorted((name for name in counts if name != draft.id), key=counts.__getitem__)
        for limit in range(40, words(draft.prompt) + 3):
            (fitted,) = fit_scenarios(fake_llm(limit=limit), [draft])
            steps = []
            for dropped in range(len(order) + 1):
                gone = tuple(f"- {name} (a place): " for name in order[:dropped])
                steps.append("\n".join(x for x in draft.prompt.split("\n") if not x.startswith(gone or "?")))
            first = next((n for n, text in enumerate(steps) if words(text) <= limit), None)
            if first == 0:
                assert fitted == draft
            elif first is None:
                assert (fitted.status, fitted.asks) == ("failed", False)
                assert fitted.refused.startswith(f"{words(steps[-1])} prompt tokens, and the model takes")
            else:
                assert (fitted.prompt, fitted.status) == (steps[first], "truncated")
                assert fitted.prompt.facts == {**draft.prompt.facts, "dropped": order[:first]}


def test_shortened_scenario_prompts_still_ask_about_their_own_scenario(fake_llm):
    """Cut at the end they would all be the same, and so would their vectors."""
    drafts = scenario_drafts({"feed": 3, "shop": 2, "film": 1}, "of many words " * 5)
    fitted = fit_scenarios(fake_llm(limit=words(drafts[0].prompt) - 20), drafts)
    assert {draft.status for draft in fitted} == {"truncated"}
    for draft in fitted:
        assert f"\n- {draft.id} (" in draft.prompt
        assert f"sets the scenario {draft.id} apart" in draft.prompt
        assert "in 3 scenarios: feed, shop, film." in draft.prompt


def test_a_real_tokenizer_is_kept_within_its_limit(titled_log, tmp_path):
    """And with the interaction that was dropped last, the prompt would not fit."""
    from msr_enhance.llm.huggingface import HuggingFaceLLM

    table = InteractionTable.from_arrays(titled_log(users=12, each=60))
    llm = HuggingFaceLLM.load("builtin", max_new_tokens=1, max_prompt_tokens=260)
    store = KnowledgeExtractor(llm, commit_every=5).extract(table, tmp_path / "store")
    split = split_table(table)
    facts = {one.user: one for one in user_histories(table, split.seen, 50)}
    scenarios, found = Platform.for_scenarios(table.scenarios), Counter(store.statuses("user"))
    assert found["truncated"] > 3
    for user in store.known("user"):
        row = store.record("user", user)
        assert row.prompt_tokens <= 260
        assert row.vector.any()
        steps = [
            prompt
            for prompt, _ in dropped_one_by_one(
                facts[user], lambda each: UserPrompt.named("default").render_facts(scenarios, each)
            )
        ]
        assert str(steps[sum(row.facts.get("dropped", {}).values())]) == row.prompt
        if row.status == "truncated":
            before = steps[sum(row.facts["dropped"].values()) - 1]
            assert llm.count_tokens([before]) > [260]
