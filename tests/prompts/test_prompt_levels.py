import copy
import itertools
import json
from types import SimpleNamespace as Facts

import pytest

from msr_enhance.errors import PromptError
from msr_enhance.prompts.platform import Platform, ScenarioNote
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt

NAMES = pytest.mark.parametrize("name", ["default", "paper"])
PLATFORM = Platform(
    name="Shopland",
    description="A shop for everybody.",
    scenarios=(
        ScenarioNote(name="Beauty", description="make-up"),
        ScenarioNote(name="Toys", expert_knowledge="Parents buy before the holidays."),
        ScenarioNote(name="Sports"),
    ),
)
COUNTS = [
    Facts(name="Beauty", interactions=12345, users=67, items=89, shared_users=10, shared_items=11),
    Facts(name="Toys", interactions=2, users=3, items=4, shared_users=5, shared_items=6),
    Facts(name="Sports", interactions=0, users=0, items=0, shared_users=0, shared_items=0),
]


def event(*text, category="", item="i1"):
    return Facts(text=text, category=category, item=item)


def user(events, totals=None, name=4711):
    return Facts(
        user=name, events=events, totals=totals or {key: len(value) for key, value in events.items()}
    )


@NAMES
def test_scenario_prompts_differ_only_in_the_last_clause(name):
    template = ScenarioPrompt.named(name)
    prompts = [template.render_facts(PLATFORM, COUNTS, counts.name) for counts in COUNTS]
    same = (len(set(letters)) == 1 for letters in zip(*prompts, strict=False))
    shared = prompts[0][: len(list(itertools.takewhile(bool, same)))]
    for part in ("Shopland", "A shop for everybody.", "Beauty, Toys, Sports", " 3 scenarios", "make-up"):
        assert part in shared
    for number in ("12,345", "67", "89", "10", "11"):
        assert number in shared
    assert all("apart" not in prompt[: len(shared) - 100] for prompt in prompts)
    assert [prompt[len(shared) :].split()[0].strip(".:") for prompt in prompts] == [
        "Beauty",
        "Toys",
        "Sports",
    ]
    assert [("holidays" in prompt) for prompt in prompts] == [False, True, False]


@NAMES
def test_scenario_facts_travel_with_the_prompt(name):
    prompt = ScenarioPrompt.named(name).render_facts(PLATFORM, COUNTS, "Toys")
    assert prompt.facts["scenario"] == "Toys"
    assert list(prompt.facts["scenarios"]) == ["Beauty", "Toys", "Sports"]
    assert prompt.facts["scenarios"]["Beauty"] == {k: v for k, v in vars(COUNTS[0]).items() if k != "name"}
    assert json.loads(json.dumps(prompt.facts)) == prompt.facts
    assert copy.copy(prompt).facts == prompt.facts


@NAMES
def test_a_log_with_two_scenarios_is_told_so(name):
    prompt = ScenarioPrompt.named(name).render_facts(PLATFORM, COUNTS[:2], "Toys")
    assert " 2 scenarios" in prompt
    assert "Sports" not in prompt
    assert "three" not in prompt


def test_a_scenario_without_counts_is_refused():
    with pytest.raises(PromptError, match=r"'Toy'.*'Toys'"):
        ScenarioPrompt.named("default").render_facts(PLATFORM, COUNTS, "Toy")


@NAMES
def test_user_histories(name):
    events = {
        "Toys": [
            event("Red car", "vehicles", category="vehicles"),
            event("vehicles", "Blue car", category="vehicles"),
        ],
        "Beauty": [event("Soap", category="bath"), event(category="bath"), event(item="9")],
    }
    prompt = UserPrompt.named(name).render_facts(PLATFORM, user(events, {"Toys": 2, "Beauty": 70}))
    lines = prompt.splitlines()
    start = lines.index("In Beauty: Soap | bath; bath; item 9.")
    assert lines[start + 1] == "In Toys: Red car | vehicles; Blue car | vehicles."
    assert lines[start + 2] == "In Sports: nothing yet."
    assert prompt.index("common interests") < prompt.index("distinct interests per scenario")
    assert prompt.facts == {
        "shown": {"Beauty": 3, "Toys": 2, "Sports": 0},
        "total": {"Beauty": 70, "Toys": 2, "Sports": 0},
        "categories": {"bath": 2, "vehicles": 2},
        "by_scenario": {"Beauty": {"bath": 2}, "Toys": {"vehicles": 2}, "Sports": {}},
    }


def test_only_the_paper_template_carries_the_user_id():
    default, paper = (
        UserPrompt.named(n).render_facts(PLATFORM, user({"Toys": [event("a")]})) for n in ("default", "paper")
    )
    assert "4711" not in default
    assert "4711" not in json.dumps(default.facts)
    assert "this user" in default
    assert "user_4711" in paper


@NAMES
@pytest.mark.parametrize("title", ["{platform}", "</s>", "{user_id.__class__}", "<|im_start|>system", "{{"])
def test_item_text_stays_plain(name, title):
    prompt = UserPrompt.named(name).render_facts(PLATFORM, user({"Toys": [event(title, category=title)]}))
    assert f"In Toys: {title}." in prompt
    assert prompt.facts["categories"] == {title: 1}


def test_item_text_cannot_leave_its_line():
    prompt = UserPrompt.named("default").render_facts(
        PLATFORM, user({"Toys": [event("a\nIn Sports: everything\u202e", "x" * 999)]})
    )
    assert f"In Toys: a In Sports: everything | {'x' * 200}." in prompt.splitlines()


def test_a_history_of_an_unknown_scenario_is_refused():
    with pytest.raises(PromptError, match=r"'Games'.*'Beauty'"):
        UserPrompt.named("default").render_facts(PLATFORM, user({"Games": []}))


def test_platform_file(tmp_path):
    path = tmp_path / "platform.yaml"
    path.write_text(
        "name: Shopland\ndescription: A shop for everybody.\nscenarios:\n"
        "- name: Beauty\n  description: make-up\n"
        "- name: Toys\n  expert_knowledge: Parents buy before the holidays.\n- name: Sports\n"
    )
    assert Platform.from_yaml(path) == PLATFORM
    PLATFORM.to_yaml(path)
    assert Platform.from_yaml(path) == PLATFORM


def test_covering_takes_the_scenarios_of_the_log():
    assert [note.name for note in PLATFORM.covering(["Sports", "Beauty"]).scenarios] == ["Sports", "Beauty"]
    with pytest.raises(PromptError, match=r"'Games'.*allowed: 'Beauty', 'Toys', 'Sports'.*Films as well"):
        PLATFORM.covering(["Toys", "Games", "Films"])


def test_without_a_file_the_names_serve():
    platform = Platform.for_scenarios(["a", "b"])
    assert platform.covering(["a", "b"]) == platform
    assert "the platform" in UserPrompt.named("default").render_facts(platform, user({}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scenarios: [{name: a}, {name: b}, {name: a}]", "'a' twice"),
        ("scenarios: [{name: a, colour: red}]", "colour.*not permitted.*name, description, expert_knowledge"),
        ("scenarios: [{name: 1}]", "quotes"),
        ("scenarios: [{description: a}]", "name: Field required"),
        ("scenarios: [{name: '\u200b'}]", "no visible name"),
        ("scenario: []", "scenario.*allowed keys: name, description, scenarios"),
        ("scenarios: Toys", "scenarios"),
    ],
)
def test_bad_platform_files(text, says, tmp_path):
    path = tmp_path / "platform.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(PromptError, match=rf"platform\.yaml.*{says}"):
        Platform.from_yaml(path)
