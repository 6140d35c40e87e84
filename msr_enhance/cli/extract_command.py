"""The options of the `extract` command; its work is in `msr_enhance.cli.extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Column, Cutoff, Items, Json, Log, Protocol, SplitKind
from msr_enhance.cli.problems import problems

_PROMPTS, _READER, _STATE = "Prompts", "Reader", "What is kept"
_RUN, _SCALE = "The run", "More than one worker"


def extract(
    data: Log,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the store; an unfinished one is continued.", rich_help_panel=_RUN),
    ],
    items: Items = None,
    column: Column = None,
    split: SplitKind = None,
    protocol: Protocol = "window",
    cutoff: Cutoff = None,
    platform: Annotated[
        Path | None,
        typer.Option(help="YAML: name, description, scenarios.", rich_help_panel=_PROMPTS),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            help="default, paper, or a folder with scenario.yaml and user.yaml.", rich_help_panel=_PROMPTS
        ),
    ] = "default",
    history: Annotated[
        int,
        typer.Option(min=1, help="Most recent positives shown per scenario.", rich_help_panel=_PROMPTS),
    ] = 50,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest prompt; longer ones lose their oldest items. Default: what the model takes.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="builtin, a folder, a Hub id, or category-frequency (text-free control).",
            rich_help_panel=_READER,
        ),
    ] = "builtin",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of a sentence encoder, instead of --model.", rich_help_panel=_READER
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of an SGLang server that runs --model, such as http://host:30000.",
            rich_help_panel=_READER,
        ),
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(help="How the server names the model, if otherwise.", rich_help_panel=_READER),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of a Hub model.", rich_help_panel=_READER)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=_READER)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; default: a GPU when there is one.", rich_help_panel=_READER),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat/--no-chat",
            help="Put prompts into the model's chat format when it has one.",
            rich_help_panel=_READER,
        ),
    ] = True,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer in tokens.", rich_help_panel=_READER)
    ] = 256,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens read together; default: what the memory holds. Changes the speed only.",
            rich_help_panel=_READER,
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run the repository's code; needs a pinned commit.",
            rich_help_panel=_READER,
        ),
    ] = False,
    state: Annotated[
        str,
        typer.Option(
            help="last (of the answer), last_step, prompt (nothing is generated) or token-mean (a control).",
            rich_help_panel=_STATE,
        ),
    ] = "last",
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers by comma, such as 7,14,28; kept as [layers, dim]. Default: the last.",
            rich_help_panel=_STATE,
        ),
    ] = None,
    before_norm: Annotated[
        bool,
        typer.Option("--before-norm", help="The last layer before the final norm.", rich_help_panel=_STATE),
    ] = False,
    store_dtype: Annotated[
        str | None,
        typer.Option(
            help="How vectors are kept: float32, float16 or bfloat16. Default: float32.",
            rich_help_panel=_STATE,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many users.", rich_help_panel=_RUN)
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="The log has changed: read again whose prompt did.", rich_help_panel=_RUN
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Read failed rows again.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Count prompts and tokens, estimate time and disk; loads no weights.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="local, processes (GPUs of this machine) or ray (a cluster: RAY_ADDRESS).",
            rich_help_panel=_SCALE,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Default: one per GPU, or 2 where there is none.", rich_help_panel=_SCALE),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shares of the users that are handed out; default: 4 a worker.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Only part i of n, as i/n from 0/n; auto asks torchrun or Slurm.", rich_help_panel=_SCALE
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a prompt for every scenario and user, have a frozen model answer, keep the knowledge.

    Rows are safe batch by batch: however a run ends, the same command goes on.
    """
    with problems():
        from msr_enhance.cli.extract import run
        from msr_enhance.cli.job import ExtractJob, as_dtype, layer_numbers

        job = ExtractJob(
            data=data,
            out=out,
            items=items,
            column=tuple(column or ()),
            platform=platform,
            template=template,
            history=history,
            split=split,
            protocol=protocol,
            cutoff=cutoff,
            limit=limit,
            model=model,
            encoder=encoder,
            server=server,
            served_as=served_as,
            max_new_tokens=max_new_tokens,
            state=state,
            layers=layer_numbers(layers),
            before_norm=before_norm,
            store_dtype=as_dtype(store_dtype),
            chat=chat,
            max_prompt_tokens=max_prompt_tokens,
            tokens_per_batch=tokens_per_batch,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            refresh=refresh,
            retry_failed=retry_failed,
        )
        run(
            job,
            engine=engine,
            workers=workers,
            parts=parts,
            shard=shard,
            dry_run=dry_run,
            as_json=json,
        )
