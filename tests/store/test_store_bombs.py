"""Bombs: a few megabytes that would become gigabytes, or seconds."""

import json
import os
import re
import subprocess
import sys

import pytest
from forge import rewritten
from spoil import HELP, PROVENANCE, row, stored

from msr_enhance.fingerprint import canonical_json, fingerprint
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.writer import StoreWriter

LOOK = """
import json, sys, time
from msr_enhance.errors import StoreError
from msr_enhance.store.knowledge import KnowledgeStore

def memory(name):
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith(name))) / 1024

before, began = memory("VmRSS"), time.process_time()
try:
    KnowledgeStore.load(sys.argv[1]).vectors("user", [1])
    said = "nothing was refused"
except StoreError as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([said, time.process_time() - began, memory("VmHWM") - before]))
"""
MANY = 165_000


def content_of(**changes):
    plain = Manifest(store="0" * 32, provenance=PROVENANCE).model_dump(mode="json")
    return plain | changes


def written(content, folder):
    data = canonical_json(content | {"checksum": fingerprint(content)})
    assert len(data) <= 4 << 20, "as large as it may be"
    (folder / "manifest-1.json").write_bytes(data)


def long_names():
    return (f"{number:020}" for number in range(MANY))


def header_claim(folder):
    """A file of 100 MB whose header says that it is as long, and a manifest that says the same."""
    with StoreWriter.open(folder, PROVENANCE) as writer:
        writer.append("user", [row(1, 3)])
    wanted = 100_000_000

    def change(content):
        (shard,) = content["shards"]
        path = folder / stored(shard["vectors"])
        with path.open("r+b") as file:
            file.truncate(wanted)
            file.write((wanted - 8).to_bytes(8, "little"))
        shard["vectors"]["bytes"] = wanted
        content["shape"]["user"] = [(wanted - 500) // 4]

    rewritten(folder, change)


def manifest_of(**changes):
    return lambda folder: written(content_of(**changes), folder)


def data_of(data):
    return lambda folder: (folder / "manifest-1.json").write_bytes(data)


BOMBS = {
    "a header of 100 MB": header_claim,
    "a list of a million numbers": manifest_of(shards=[0] * 1_000_000),
    "an identity of two million": manifest_of(
        provenance={"identity": {"a": [0] * 2_000_000}, "window": {}, "facts": {}}
    ),
    "long names for shards": manifest_of(shards=list(long_names())),
    "many small shards": manifest_of(shards=[{"a": "x" * 16}] * 150_000),
    "names in a shard": manifest_of(shards=[dict.fromkeys(long_names(), 0)]),
    "names beside the others": lambda folder: written(content_of() | dict.fromkeys(long_names(), 0), folder),
    "names of levels": manifest_of(shape=dict.fromkeys(long_names(), 0)),
    "names in the provenance": manifest_of(provenance=dict.fromkeys(long_names(), 0)),
    "a long shape": manifest_of(shape={"user": list(long_names())}),
    "many maps": manifest_of(maps=list(long_names())),
    "a million objects": data_of(b"[" + b"{}," * 1_000_000 + b"{}]"),
    "lists in lists in a list": data_of(b"[" + b",".join([b"[" * 400 + b"]" * 400] * 5000) + b"]"),
    "depth": data_of(b"[" * 4_000_000),
    "depth of names": data_of(b'{"a":' * 800_000),
    "an integer of four million digits": data_of(b"9" * 4_000_000),
    "a thousand integers of four thousand": data_of(
        canonical_json(content_of(maps=["x"] * 900)).replace(b'"x"', b"9" * 4000)
    ),
    "a long text": data_of(b'"' + b"x" * 4_000_000 + b'"'),
    "a gigabyte": lambda folder: os.truncate(touched(folder / "manifest-1.json"), 1 << 30),
}


def touched(path):
    path.touch()
    return path


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_a_second_and_little_memory(tmp_path, bomb):
    BOMBS[bomb](tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    said, seconds, megabytes = json.loads(done.stdout)
    assert re.match(r"StoreCorruptError: .*(manifest-1\.json|vec-\w+\.safetensors)", said), said[:300]
    assert len(said) < 2000
    assert HELP.search(said)
    assert seconds < 1
    assert megabytes < 64
