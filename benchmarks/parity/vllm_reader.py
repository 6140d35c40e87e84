"""Does vLLM read the same answers and states as msr-enhance? Three steps, two environments.

    python vllm_reader.py export STORE cases.json --rows 64      # where msr-enhance is installed
    python vllm_reader.py read cases.json answers.json           # where vLLM is installed, on its GPU
    python vllm_reader.py compare cases.json answers.json        # where msr-enhance is installed

`export` takes rows of a store that `HuggingFaceLLM` or `HttpLLM` wrote, with the token ids of their prompts.
`read` needs nothing but vLLM: it answers them greedily, then reads prompt and answer once more with a pooling
engine (LAST, no activation) for the state, each in a process of its own. `compare` prints one JSON object on
stdout and exits with 1 where vectors or answers differ by more than is allowed.

Written from the sources of vLLM 0.33 and NOT run against it by us: it does not install beside our versions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def export(store_path: Path, out: Path, rows: int, model: str | None) -> None:
    """Write prompts as token ids, with the answers and vectors that a store holds of them."""
    from msr_enhance.llm.checkpoint import outline
    from msr_enhance.store.knowledge import KnowledgeStore

    store = KnowledgeStore.load(store_path)
    llm = store.provenance.identity["llm"]
    state = llm.get("state") or {}
    kind = state.get("kind") if isinstance(state, dict) else None
    if kind not in ("last", "last_step") or state["norm"] != "after" or state["layers"] is not None:
        sys.exit(f"vLLM's pooling engine gives one state after the final norm; this store holds {state}")
    known = outline(model or llm["model"], revision=llm["revision"], chat=llm["chat"] is not None)
    cases = []
    for user in store.known("user")[:rows]:
        record = store.record("user", user)
        ids = known.encode(record.prompt)
        if len(ids) != record.prompt_tokens:
            sys.exit(f"user {user}: {known.name} makes {len(ids)} tokens of what were {record.prompt_tokens}")
        cases.append(
            {"prompt": ids, "text": record.text, "cut": record.facts["reason"] == "length"}
            | {"vector": record.vector.tolist()}
        )
    settings = {"model": known.name, "revision": llm["revision"], "chat": llm["chat"] is not None}
    settings |= {"kind": kind, "dtype": llm["dtype"], **llm["decoding"]}
    out.write_text(json.dumps({"settings": settings, "cases": cases}), encoding="utf-8")
    print(f"{len(cases)} prompts of {store_path} are in {out}", file=sys.stderr)


def read(cases: Path, out: Path, engine: Json) -> None:
    """Both passes, each in a process of its own, so that the first gives its memory back."""
    for stage in ("generate", "pool"):
        words = [
            sys.executable,
            str(Path(__file__).resolve()),
            stage,
            str(cases),
            str(out),
            json.dumps(engine),
        ]
        if code := subprocess.run(words, check=False).returncode:
            sys.exit(f"the pass {stage!r} ended with {code}; its words are above")


def generate(content: Json, engine: Json) -> list[Json]:
    """First pass: visible token ids of each answer, without the token that ended it."""
    from vllm import LLM, SamplingParams

    settings = content["settings"]
    llm = LLM(**engine, runner="generate", skip_tokenizer_init=True)
    greedy = SamplingParams(
        temperature=0.0,
        max_tokens=settings["max_new_tokens"],
        stop_token_ids=settings["end_ids"],
        detokenize=False,
    )
    prompts = [{"prompt_token_ids": case["prompt"]} for case in content["cases"]]
    answers = []
    for output in llm.generate(prompts, greedy):
        said = output.outputs[0]
        ended = said.finish_reason == "stop"
        answers.append({"tokens": list(said.token_ids)[: -1 if ended else None], "ended": ended})
    return answers


def pool(content: Json, answers: list[Json], engine: Json) -> list[Json]:
    """Second pass: the state at the last token of prompt and answer, after the final norm."""
    from vllm import LLM, PoolingParams
    from vllm.config import PoolerConfig

    pooler = PoolerConfig(pooling_type="LAST", use_activation=False)
    llm = LLM(**engine, runner="pooling", convert="embed", pooler_config=pooler, skip_tokenizer_init=True)
    texts = []
    for case, answer in zip(content["cases"], answers, strict=True):
        # What predicted the last token of an answer that was cut stands one place before it.
        before = content["settings"]["kind"] == "last_step" and not answer["ended"]
        texts.append({"prompt_token_ids": case["prompt"] + answer["tokens"][: -1 if before else None]})
    outputs = llm.embed(texts, pooling_params=PoolingParams(use_activation=False))
    return [
        {**answer, "vector": list(map(float, output.outputs.embedding))}
        for answer, output in zip(answers, outputs, strict=True)
    ]


def compare(content: Json, answers: list[Json], cosine: float, same: float) -> Json:
    """How far vectors of equal answers lie apart; `passed` says whether that is allowed."""
    import numpy as np

    from msr_enhance.llm.checkpoint import outline

    settings = content["settings"]
    known = outline(settings["model"], revision=settings["revision"], chat=settings["chat"])
    errors, cosines, scales = [], [], []
    for case, answer in zip(content["cases"], answers, strict=True):
        # In half precision two engines may part at a near tie; what follows then is another answer.
        if known.decode(answer["tokens"]) != case["text"] or answer["ended"] == case["cut"]:
            continue
        ours, theirs = np.array(case["vector"]), np.array(answer["vector"])
        if ours.shape != theirs.shape:
            sys.exit(f"vectors have {ours.shape} and {theirs.shape} numbers; vLLM read another model")
        errors.append(np.abs(ours - theirs))
        scales.append(np.abs(ours).mean())
        cosines.append(float(ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs) or 1.0)))
    equal = len(errors) / max(1, len(answers))
    found: Json = {"prompts": len(answers), "equal_answers": equal, "kind": settings["kind"]}
    if errors:
        found |= {"largest_error": float(np.max(errors)), "mean_error": float(np.mean(errors))}
        found |= {"mean_size": float(np.mean(scales))}
        found |= {"least_cosine": min(cosines), "mean_cosine": float(np.mean(cosines))}
    found["passed"] = bool(errors) and equal >= same and min(cosines) >= cosine
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("export")
    step.add_argument("store", type=Path)
    step.add_argument("cases", type=Path)
    step.add_argument("--rows", type=int, default=64)
    step.add_argument("--model", help="the folder of a local model; a store keeps only its last name")
    step = steps.add_parser("read")
    step.add_argument("cases", type=Path)
    step.add_argument("answers", type=Path)
    step.add_argument("--model", help="where the model is on this machine")
    step.add_argument("--dtype", default="auto", help="take the store's, float32 for the tightest check")
    step.add_argument("--max-model-len", type=int)
    step.add_argument(
        "--trust-remote-code", action="store_true", help="vLLM needs it for ChatGLM's own files"
    )
    for stage in ("generate", "pool"):  # what `read` starts
        step = steps.add_parser(stage)
        step.add_argument("cases", type=Path)
        step.add_argument("answers", type=Path)
        step.add_argument("engine", type=json.loads)
    step = steps.add_parser("compare")
    step.add_argument("cases", type=Path)
    step.add_argument("answers", type=Path)
    step.add_argument("--cosine", type=float, default=0.999, help="least cosine of two vectors")
    step.add_argument("--same", type=float, default=0.8, help="least share of equal answers")
    given = parser.parse_args()
    if given.step == "export":
        export(given.store, given.cases, given.rows, given.model)
        return
    content = json.loads(given.cases.read_text("utf-8"))
    if given.step == "read":
        settings = content["settings"]
        engine = {"model": given.model or settings["model"], "dtype": given.dtype}
        engine |= {"trust_remote_code": True} if given.trust_remote_code else {}
        engine |= {"max_model_len": given.max_model_len} if given.max_model_len else {}
        if not Path(engine["model"]).is_dir() and settings["revision"]:
            engine["revision"] = settings["revision"]
        read(given.cases, given.answers, engine)
    elif given.step == "compare":
        found = compare(content, json.loads(given.answers.read_text("utf-8")), given.cosine, given.same)
        print(json.dumps(found))
        sys.exit(0 if found["passed"] else 1)
    else:
        answers = (
            generate(content, given.engine)
            if given.step == "generate"
            else pool(content, json.loads(given.answers.read_text("utf-8")), given.engine)
        )
        given.answers.write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
