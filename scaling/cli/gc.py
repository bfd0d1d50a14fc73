"""``scaling gc``."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from sweeps.leftovers import Leftover


def gc(
    workspace: WorkspaceOption = Path("workspace"),
    keep_final: Annotated[
        bool,
        typer.Option("--keep-final", help="Keep each finished run's last checkpoint, to generate and export from."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove checkpoints that nobody needs, after saying which and how many bytes.

    Of finished runs that carry no unfinished branch, of run folders that the ledger doesn't know, and what killed
    processes left half-written. Never of a run that is planned, in training, failed or called off.

    Example: scaling gc --keep-final
    """
    from scaling.quantity import format_count
    from sweeps.ledger.ledger import Ledger
    from sweeps.leftovers import leftovers, remove_leftovers
    from sweeps.workspace import Workspace

    if not (workspace / "ledger.db").is_file():
        raise UserError(f"--workspace {workspace} has no ledger.db: without one nothing can be told apart")
    space = Workspace(workspace)
    ledger = Ledger(space.ledger_url)
    found = leftovers(ledger, space, keep_final=keep_final)
    if not as_json:
        typer.echo(_page(found, space.root))
    agreed = bool(found) and (yes or (not as_json and sys.stdin.isatty() and typer.confirm("remove them?")))
    removed = remove_leftovers(ledger, space, found, keep_final=keep_final) if agreed else []
    if as_json:
        print_json({"found": _record(found), "removed": _record(removed), "removed_bytes": _bytes(removed)})
    elif removed:
        typer.echo(f"removed {len(removed)}, {format_count(_bytes(removed))}B freed")
    elif found:
        typer.echo("nothing was removed (--yes removes them)")


def _bytes(found: list[Leftover]) -> int:
    return sum(leftover.size for leftover in found)


def _record(found: list[Leftover]) -> list[dict[str, str | int]]:
    return [{"path": str(leftover.path), "kind": leftover.kind, "bytes": leftover.size} for leftover in found]


def _page(found: list[Leftover], root: Path) -> str:
    from scaling.quantity import format_count

    if not found:
        return "nothing to remove"
    kinds: dict[str, list[Leftover]] = defaultdict(list)
    for leftover in found:
        kinds[leftover.kind].append(leftover)
    lines = []
    for kind, some in kinds.items():
        lines.append(f"{kind}: {len(some)}, {format_count(_bytes(some))}B")
        lines += [f"  {leftover.path.relative_to(root)}  {format_count(leftover.size)}B" for leftover in some[:20]]
        lines += [f"  and {len(some) - 20} more"] if len(some) > 20 else []
    return "\n".join([*lines, f"together {format_count(_bytes(found))}B"])
