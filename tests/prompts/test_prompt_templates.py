import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_enhance.errors import PromptError
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.template import clean_text
from msr_enhance.prompts.user import UserPrompt

ATTACKS = [
    "{histories.__class__}",
    "{histories.__init__.__globals__}",
    "{histories[0]}",
    "{histories!r}",
    "{histories:>999999999}",
    "{histories:{platform}}",
    "{ histories}",
    "{Histories}",
    "{}",
    "{0}",
    "{secret}",
    "{scenario}",  # a field of the other template
    "{",
    "}",
    "{histories",
    "histories}",
    "{{histories}",
    "{histories}}",
    "{{{histories}}",
    "{{}}{",
    "{hist\nories}",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_only_bare_declared_names_stand_in_braces(text):
    with pytest.raises(PromptError, match=r"allowed: \{platform\}.*\{histories\}"):
        UserPrompt(name="attack", text=f"a {text} b")


def test_doubled_braces_are_literal():
    template = UserPrompt(name="braces", text="{{x}} {{{platform}}} {{{{}}}}")
    assert template.render({"platform": "p"}) == "{x} {p} {{}}"


@given(st.text())
def test_a_value_is_never_read_again(value):
    template = UserPrompt(name="plain", text="<{platform}|{histories}>")
    assert template.render({"platform": "{histories}", "histories": value}) == f"<{{histories}}|{value}>"


def test_a_line_of_empty_fields_is_left_out():
    template = UserPrompt(name="lines", text="a\n\n{platform}{histories}\nNote: {user_id}\nb {user_id}.")
    assert template.render({"platform": "", "histories": "h", "user_id": ""}) == "a\n\nh"
    assert template.render({"platform": "", "histories": "", "user_id": "u"}) == "a\n\nNote: u\nb u."


def test_a_field_without_value_is_named():
    with pytest.raises(PromptError, match=r"needs 'histories'.*given for platform"):
        UserPrompt(name="x", text="{platform}{histories}").render({"platform": "p"})


def test_an_unknown_name_lists_the_known():
    with pytest.raises(PromptError, match=r"'papre'.*'paper'.*'default'.*UserPrompt.from_yaml"):
        UserPrompt.named("papre")


@pytest.mark.parametrize("kind", [UserPrompt, ScenarioPrompt])
@pytest.mark.parametrize("name", ["default", "paper"])
def test_yaml_round_trip(kind, name, tmp_path):
    template = kind.named(name)
    template.to_yaml(tmp_path / "template.yaml")
    assert kind.from_yaml(tmp_path / "template.yaml") == template
    assert kind.from_text(template.to_text()).fingerprint() == template.fingerprint()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}")))
def test_any_text_survives_yaml(text):
    template = UserPrompt(name="any", text=text)
    assert UserPrompt.from_text(template.to_text()) == template


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\ntext: b\nmodel: c", "model.*not permitted.*allowed keys: name, text, level"),
        ("name: a", "text: Field required"),
        ("name: 7\ntext: b", "name.*put text in quotes"),
        ("name: a\nname: b\ntext: c", "'name' is written twice"),
        ("name: a\ntext: b\nlevel: scenario", "level: Input should be 'user'"),
        ("- a", "holds a list"),
        ("1: a", "name, text, level"),
        ("name: [", "not YAML"),
        ("name: !!python/object/apply:os.getcwd []\ntext: b", "not YAML that can be read"),
        ("name: a\ntext: '{user_id.real}'", "by bare name only"),
    ],
)
def test_strict_yaml(text, says, tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(text)
    with pytest.raises(PromptError, match=rf"(?s)template\.yaml.*{says}"):
        UserPrompt.from_yaml(path)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"name: \xe9")
    for name in ("absent", "latin"):
        with pytest.raises(PromptError, match=f"{name} cannot be read"):
            UserPrompt.from_yaml(tmp_path / name)


def test_the_fingerprint_follows_the_text_and_the_kind():
    one, same = UserPrompt(name="a", text="{platform}"), UserPrompt(name="b", text="{platform}")
    assert one.fingerprint() == same.fingerprint()
    assert one.fingerprint() != UserPrompt(name="a", text="{platform} ").fingerprint()
    assert one.fingerprint() != ScenarioPrompt(name="a", text="{platform}").fingerprint()


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("  a\t\n b\u2028c\u00a0d ", "a b c d"),
        ("a\x00b\x1b[31m\x9bc", "ab[31mc"),
        ("\u202eabc\u2066\u200b\u200d\ufeff", "abc"),
        ("e\u200b\u0301", "é"),
        ("\ud800x", "x"),
        ("{platform} </s> <|im_end|>", "{platform} </s> <|im_end|>"),
        ("\u200b", ""),
    ],
)
def test_clean_text(dirty, clean):
    assert clean_text(dirty) == clean


@given(st.text(), st.integers(1, 20))
def test_clean_text_is_one_short_line_and_stays_so(value, limit):
    clean = clean_text(value, limit)
    assert len(clean) <= limit
    assert clean.isprintable() or not clean.isascii()
    assert clean_text(clean, limit) == clean
