"""``scaling judge``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, print_json
from scaling.cli.text_model import (
    ConcurrencyOption,
    EndpointOption,
    KeyOption,
    ModelOption,
    RateOption,
    TimeoutOption,
    TriesOption,
    open_text_model,
)


def judge(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Pairs as JSON lines: prompt, and first and second (or chosen, rejected)."),
    ],
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="The pairs that get a verdict, as training takes them.")] = Path(
        "pairs.jsonl"
    ),
    endpoint: EndpointOption = None,
    key_from: KeyOption = None,
    prompt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Own words for the judge, with PROMPT, ANSWER_1 and ANSWER_2.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one verdict.")] = 512,
    concurrency: ConcurrencyOption = 4,
    requests_per_minute: RateOption = None,
    timeout: TimeoutOption = 120.0,
    tries: TriesOption = 6,
    as_json: JsonFlag = False,
) -> None:
    """Let a model say which of two answers is better, in both orders; what wins in both is preferred, the rest ties.

    Interrupt it at any moment; the same command goes on with what has no verdict yet.

    Example: scaling judge sampled.jsonl --endpoint http://127.0.0.1:8000/v1 --model qwen --out pairs.jsonl
    """
    from scaling.cli.counting_display import CountingDisplay
    from scaling.errors import UserError
    from trainer.posttrain.judge import JudgeReport
    from trainer.posttrain.judge import judge as run
    from trainer.posttrain.votes import Votes, read_comparisons

    try:
        template = None if prompt is None else prompt.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompt {prompt} can't be read: {error}") from None
    comparisons = read_comparisons(file)
    opened = open_text_model(
        model,
        endpoint,
        key_from,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        timeout=timeout,
        tries=tries,
    )
    votes = Votes(comparisons, out)
    started, before = time.monotonic(), [-1]
    with CountingDisplay(file.name) as display:

        def tell(report: JudgeReport) -> None:
            if before[0] < 0:
                before[0] = report.judged
            new = report.judged - before[0]
            left = (time.monotonic() - started) / new * (report.pairs - report.judged) if new else None
            facts = (
                f"{report.judged:,} of {report.pairs:,} pairs · {report.preferred:,} preferred · "
                f"{report.ties:,} ties · {report.prompt_tokens + report.completion_tokens:,} tokens"
            )
            display.show(report.judged / report.pairs, facts, left)

        end = run(opened, votes, template=template, temperature=temperature, most_tokens=max_tokens, tell=tell)
    if as_json:
        print_json(
            {"judge": opened.name, "out": str(out), **end.model_dump(mode="json"), "consistency": end.consistency}
        )
        return
    agree = "" if end.consistency is None else f"; the two orders agree in {end.consistency:.1%}"
    typer.echo(
        f"{end.judged:,} of {end.pairs:,} pairs judged by {opened.name}: {end.preferred:,} preferred, "
        f"{end.ties:,} ties{agree}\n"
        f"read first wins {end.first_place_wins:,} times, read second {end.second_place_wins:,}; "
        f"{end.refused:,} refusals and {end.unreadable:,} unreadable replies\n"
        f"{end.requests:,} requests, {end.prompt_tokens:,} + {end.completion_tokens:,} tokens; pairs in {out}"
    )
