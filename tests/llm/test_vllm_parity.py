"""The steps of benchmarks/parity, with a stand-in for vLLM that knows only the calls the script makes."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hidden_state_server import SERVED_NEW
from tiny_models import slow_answer

from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.huggingface import HuggingFaceLLM

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parity" / "vllm_reader.py"

STAND_IN = """
import json, os
from types import SimpleNamespace as Thing

class SamplingParams:
    def __init__(self, *, temperature, max_tokens, stop_token_ids, detokenize):
        assert temperature == 0.0 and not detokenize
        self.ends = stop_token_ids

class PoolingParams:
    def __init__(self, *, use_activation):
        assert use_activation is False

class LLM:
    def __init__(self, *, model, dtype, runner, skip_tokenizer_init, convert=None, pooler_config=None):
        self.runner, self.known = runner, json.loads(open(os.environ["STAND_IN_ANSWERS"]).read())
        assert (runner, convert) in (("generate", None), ("pooling", "embed")), (runner, convert)
        if runner == "pooling":
            assert vars(pooler_config) == {"pooling_type": "LAST", "use_activation": False}

    def generate(self, prompts, sampling):
        for prompt in prompts:
            known = self.known[json.dumps(prompt["prompt_token_ids"])]
            said = known["tokens"] + sampling.ends[:1] * known["ended"]
            reason = "stop" if known["ended"] else "length"
            yield Thing(outputs=[Thing(token_ids=tuple(said), finish_reason=reason)])

    def embed(self, prompts, *, pooling_params):
        for prompt in prompts:
            yield Thing(outputs=Thing(embedding=self.known[json.dumps(prompt["prompt_token_ids"])]["vector"]))
"""
CONFIG = """
class PoolerConfig:
    def __init__(self, **options):
        vars(self).update(options)
"""


def here(*words: Any) -> int:
    """The script's exit status, run in this process: its imports are here already."""
    before = sys.argv
    sys.argv = [str(SCRIPT), *map(str, words)]
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.mark.parametrize("kind", ["last", "last_step"])
def test_the_three_steps_pass_for_equal_states_and_fail_for_others(
    kind: Any, served_folder: Path, served_model: Any, titled_log: Any, tmp_path: Path, capsys: Any
) -> None:
    llm = HuggingFaceLLM.load(served_folder, device="cpu", max_new_tokens=SERVED_NEW, state=kind)
    table = InteractionTable.from_arrays(titled_log(users=5))
    KnowledgeExtractor(llm, history=3).extract(table, tmp_path / "store")
    cases, answers = tmp_path / "cases.json", tmp_path / "answers.json"
    assert here("export", tmp_path / "store", cases, "--rows", 4, "--model", served_folder) == 0
    content = json.loads(cases.read_text())
    assert len(content["cases"]) == 4

    known: dict[str, Any] = {}
    ends = content["settings"]["end_ids"]
    for case in content["cases"]:
        said, ended, at, predicting = slow_answer(served_model, case["prompt"], SERVED_NEW, ends)
        ended = ended and (kind == "last" or len(said) < SERVED_NEW)
        known[json.dumps(case["prompt"])] = {"tokens": said, "ended": ended}
        states = at if kind == "last" else predicting
        read = case["prompt"] + (said if kind == "last" or ended else said[:-1])
        known[json.dumps(read)] = {"vector": states[-1].tolist()}
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "vllm" / "config.py").write_text(CONFIG)
    (tmp_path / "known.json").write_text(json.dumps(known))
    environment = {"PYTHONPATH": str(tmp_path), "STAND_IN_ANSWERS": str(tmp_path / "known.json")}
    words = [sys.executable, str(SCRIPT), "read", str(cases), str(answers)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr

    capsys.readouterr()
    assert here("compare", cases, answers, "--cosine", 0.999999) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["equal_answers"]) == (True, 1.0)
    assert found["largest_error"] < 1e-4

    other = json.loads(answers.read_text())
    other[0]["vector"] = [-number for number in other[0]["vector"]]
    answers.write_text(json.dumps(other))
    assert here("compare", cases, answers) == 1
    for answer in other:
        answer["tokens"] = answer["tokens"][:1] * 2
    answers.write_text(json.dumps(other))
    assert here("compare", cases, answers) == 1
