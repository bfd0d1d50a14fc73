"""``scaling synthesise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from trainer.posttrain.synthesis.diversity import Diversity, Quantiles
    from trainer.posttrain.synthesis.synthesise import Progress


def synthesise(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where tasks, counts and decisions go.")],
    seeds: Annotated[
        Path, typer.Option(metavar="FILE", help="Tasks that people wrote, as JSON lines: instruction, input, output.")
    ],
    model: ModelOption,
    count: Annotated[int, typer.Option(min=1, help="Tasks to have in all.")] = 500,
    endpoint: EndpointOption = None,
    key_from: KeyOption = None,
    most_requests: Annotated[
        int | None, typer.Option(min=1, help="End after these in all, however few were kept.")
    ] = None,
    tasks_per_request: Annotated[int, typer.Option(min=1, help="New tasks that are asked for at once.")] = 8,
    rouge_below: Annotated[float, typer.Option(max=1.0, help="Kept if less similar to every other, by ROUGE-L.")] = 0.7,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_p: Annotated[float | None, typer.Option(max=1.0)] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer, which has several tasks.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples in each prompt, and of the model.")] = 0,
    concurrency: ConcurrencyOption = 4,
    requests_per_minute: RateOption = None,
    timeout: TimeoutOption = 300.0,
    tries: TriesOption = 6,
    as_json: JsonFlag = False,
) -> None:
    """Let a model write instructions with answers from seed tasks, and keep what is well formed and new.

    Interrupt it at any moment; the same command goes on. A person reviews before use: scaling review FOLDER.

    Example: scaling synthesise my-tasks --seeds seeds.jsonl --endpoint http://127.0.0.1:8000/v1 --model qwen
    """
    from scaling.cli.counting_display import CountingDisplay
    from scaling.errors import UserError
    from scaling.quantity import format_count
    from scaling.record import content_hash
    from trainer.posttrain.synthesis.diversity import diversity
    from trainer.posttrain.synthesis.synthesise import Settings, SynthesisFolder
    from trainer.posttrain.synthesis.synthesise import synthesise as run
    from trainer.posttrain.synthesis.task import read_seed_tasks

    for name, value in (("--rouge-below", rouge_below), ("--top-p", top_p)):
        if value is not None and value <= 0:
            raise UserError(f"{name} is {value:g}: give more than 0 and at most 1")
    tasks = read_seed_tasks(seeds)
    opened = open_text_model(
        model,
        endpoint,
        key_from,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        timeout=timeout,
        tries=tries,
    )
    settings = Settings(
        model=opened.name,
        seeds_hash=content_hash([task.model_dump() for task in tasks]),
        tasks_per_request=tasks_per_request,
        rouge_below=rouge_below,
        temperature=temperature,
        top_p=top_p,
        most_tokens=max_tokens,
        seed=seed,
    )
    place = SynthesisFolder(folder)
    with CountingDisplay(folder.name) as display:

        def tell(progress: Progress) -> None:
            facts = (
                f"{progress.kept:,} of {progress.wanted:,} tasks · {progress.requests:,} requests · "
                f"{sum(progress.dropped.values()):,} dropped · {format_count(progress.completion_tokens)} tokens"
            )
            display.show(progress.kept / progress.wanted, facts, progress.seconds_left)

        end = run(opened, tasks, place, settings, wanted=count, most_requests=most_requests, tell=tell)
    found = diversity(place.tasks())
    if as_json:
        print_json({"folder": str(folder), **end.model_dump(mode="json"), "diversity": found.model_dump(mode="json")})
    else:
        typer.echo("\n".join(_page(folder, end, found)))


def _page(folder: Path, end: Progress, found: Diversity) -> list[str]:
    lines = [
        f"{end.kept:,} tasks of {end.requests:,} requests ({end.prompt_tokens:,} + {end.completion_tokens:,} tokens) "
        f"in {folder / 'tasks.jsonl'}"
    ]
    lines += [f"  {count:>7,} dropped: {reason}" for reason, count in end.dropped.items()]
    lines += ["", "words            least   10%  half   90%   most"]
    rows = (
        ("instruction", found.instruction_words),
        (f"input ({found.with_input:,})", found.input_words),
        ("output", found.output_words),
    )
    lines += [f"  {name:14}{_quantiles(row)}" for name, row in rows if row is not None]
    lines += ["", "ROUGE-L with the most similar instruction before"]
    widest = max(found.nearest_by_tenth, default=0) or 1
    for tenth, count in enumerate(found.nearest_by_tenth):
        if count:
            lines.append(
                f"  {tenth / 10:.1f}–{(tenth + 1) / 10:.1f} {count:>7,}  {'▇' * max(1, round(40 * count / widest))}"
            )
    begun = ", ".join(f"{words} {count}" for words, count in list(found.first_pairs.items())[:8])
    lines += [
        "",
        f"{found.distinct_first_pairs:,} ways to begin; most often: {begun}",
        f"{found.repeated_outputs:,} outputs and {found.repeated_inputs:,} inputs are those of another task",
        "",
        f"next: scaling review {folder}",
    ]
    return lines


def _quantiles(row: Quantiles) -> str:
    return "".join(
        f"{value:7.0f}" if at == 4 else f"{value:6.0f}" for at, value in enumerate(row.model_dump().values())
    )
