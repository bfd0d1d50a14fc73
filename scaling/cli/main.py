"""The console script ``scaling``: one thin file a command, imported only for its options; heavy imports wait inside.

Exit codes: 0 done; 1 a fault of ours, with its traceback in a log file; 2 a mistake in what was given, in one line;
3 the answer is a refusal (the data can't support it, a run diverged, a preflight's check failed); 130 and 143 stopped
by Ctrl-C or SIGTERM, everything saved.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path

import typer

from scaling.cli import (
    allocate,
    cancel,
    chat,
    compare,
    cost,
    export,
    fit,
    forecasts,
    gc,
    generate,
    judge,
    launch,
    plan,
    posttrain,
    predict,
    prefer,
    preference,
    recommend,
    report,
    retry,
    review,
    run,
    score,
    status,
    study,
    sweep,
    synthesise,
    track,
    train,
    ui,
    watch,
)
from scaling.errors import UserError

__all__ = ["app", "main"]

app = typer.Typer(
    name="scaling",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Plan, train and fit scaling-law sweeps of small transformers, and size the one large run from them.",
    epilog="Start with: scaling study new quickstart && scaling run quickstart.yaml",
)
app.add_typer(study.app, name="study", help="Write a study file; carry a study elsewhere.")
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("status")(status.status)
app.command("track")(track.track)
app.command("retry")(retry.retry)
app.command("cancel")(cancel.cancel)
app.command("gc")(gc.gc)
app.command("fit")(fit.fit)
app.command("predict")(predict.predict)
app.command("allocate")(allocate.allocate)
app.command("compare")(compare.compare)
app.command("forecasts")(forecasts.forecasts)
app.command("score")(score.score)
app.command("recommend")(recommend.recommend)
app.command("cost")(cost.cost)
app.command("train")(train.train)
app.command("posttrain")(posttrain.posttrain)
app.command("launch")(launch.launch)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("synthesise")(synthesise.synthesise)
app.command("review")(review.review)
app.command("prefer")(prefer.prefer)
app.command("judge")(judge.judge)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("preference")(preference.preference)
app.command("watch")(watch.watch)
app.command("ui")(ui.ui)


def main() -> None:
    """Run the command line; every way out has its exit code."""
    try:
        app()
    except UserError as error:
        print(f"scaling: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("scaling: stopped; what was finished is saved", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`scaling fit … | head`): nothing is left to say.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is not None:
            print(f"scaling: {error}; run the same command again to continue", file=sys.stderr)
            sys.exit(code)
        print(
            f"scaling: unexpected fault: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n"
            f"  the traceback is in {_keep_traceback()}; please report it",
            file=sys.stderr,
        )
        sys.exit(1)


def _keep_traceback() -> Path:
    """Write the traceback where the user can find it: beside them if possible, else in the temporary folder."""
    name = f"scaling-fault-{time.strftime('%Y%m%d-%H%M%S')}.log"
    text = f"{sys.argv}\n{traceback.format_exc()}"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            path = folder / name
            path.write_text(text, encoding="utf-8")
            return path
        except OSError:
            continue
    return Path("(nowhere writable)")


if __name__ == "__main__":
    main()
