"""The commands, and how they end.

0: fine. 1: the answer is no (``--fail-under``, ``verify``). 2: bad input, one line. 3: a bug. 130: Ctrl-C.
Everything heavy is imported by the command that needs it, so that ``--help`` comes at once.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from calipers.cli.data import data_app
from calipers.cli.memory import keep_freed_memory
from calipers.cli.outcome import check_place, tell_run
from calipers.cli.papers import papers_app
from calipers.cli.terminal import complain, progress, say, warnings_in_a_line
from calipers.cli.train import train
from calipers.cli.wording import Flag, Radii, Whole, complaint
from calipers.errors import BadInput

__all__ = ["app", "main", "run"]

_HELP = """How robust is a classifier? A certified lower bound and an attack's upper bound for every input.

Audit the built-in network on the embedded digits:

    calipers audit digits-mlp --data digits --norm linf --eps 0.05 --eps 0.1

Audit your own: a factory, weights, or a scikit-learn estimator:

    calipers audit mypackage.nets:make --data mnist --norm linf --eps 0.1 --examples 1000

    calipers audit weights.safetensors --arch mypackage.nets:make --data test.npz --norm l2 --eps 0.5

    calipers audit model.skops --data test.npz --norm l2 --eps 0.5 --fail-under 0.8
"""

app = App(
    name="calipers",
    help=_HELP,
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
app.command(data_app)
app.command(papers_app)
app.command(train)


@app.command
def audit(
    model: str,
    /,
    *,
    data: str | None = None,
    norm: str = "linf",
    eps: Radii = (),
    examples: Whole | None = None,
    budget: str = "standard",
    seed: Whole = 0,
    out: Path | None = None,
    resume: Flag = False,
    replace: Flag = False,
    fail_under: float | None = None,
    junit: Path | None = None,
    workers: str = "1",
    batch_size: Whole = 128,
    smooth: float | None = None,
    smooth_draws: Whole = 10_000,
    arch: str | None = None,
    box: Annotated[tuple[float, float] | None, Parameter(negative=())] = None,
    other: str | None = None,
    claimed: float | None = None,
    trust: Flag = False,
    quiet: Flag = False,
    json: Flag = False,
) -> int:
    """Bracket every example between a certificate and an attack, and check that the numbers can be trusted.

    For example:

        calipers audit digits-mlp --data digits --norm linf --eps 0.05 --eps 0.1 --out run1

        calipers audit digits-mlp --data digits --norm l2                 (the minimal distortion alone)

        calipers audit net.safetensors --arch nets:make --data mnist --eps 0.1 --examples 1000 --budget quick

    Parameters
    ----------
    model
        A built-in name (digits-mlp, digits-linear), FILE.safetensors or a state dict FILE.pt with --arch, FILE.skops,
        FILE.onnx, package.module:factory, or the folder of a training.
    data
        digits, mnist, fashion-mnist, cifar10, FILE.npz with x and y, or a folder of images; by default what the model
        was trained on, if it is the folder of a training.
    norm
        linf, l2, l1 or l0; L2 and l_inf are understood too.
    eps
        A radius to decide, in the units of the inputs: 0.1 or 8/255; several with commas, or by repeating it.
    examples
        Audit the first so many examples.
    budget
        quick, standard or thorough; auto, which spends where it still changes something; reference, AutoAttack as
        published.
    seed
        Of every random draw; the same seed gives the same rows.
    out
        The run folder; runs/MODEL-DATA-NORM by default.
    resume
        Go on with the unfinished run in --out.
    replace
        Overwrite the run in --out.
    fail_under
        Exit with status 1 if less than this fraction is proved robust at the largest eps, or if a check failed.
    junit
        Also write the answer to --fail-under and every check to this JUnit file, for CI services.
    workers
        How many processes, or dask:FILE with a scheduler file.
    batch_size
        How many examples the model sees at once.
    smooth
        Also the L2 radii of the model smoothed by noise of this sigma, in columns of their own.
    smooth_draws
        How many noisy copies of each example they are estimated from.
    arch
        The architecture for weights: mnist-cnn, mnist-small, resnet18, … or package.module:factory.
    box
        The lowest and the highest value an input may take; the data set's own by default.
    other
        A second model, of the same --arch, whose witnesses are tried on this one.
    claimed
        The clean accuracy published for this model, to be checked.
    trust
        Load model files that can run code. Nothing shields you from them.
    quiet
        Say nothing but errors.
    json
        Print summary.json instead of the table.
    """
    from calipers.audit import audit as run_audit
    from calipers.audit import check_request, open_inputs

    count: int | str = int(workers) if workers.isdecimal() else workers
    threat = check_request(norm, eps, budget=budget, seed=seed, workers=count, batch_size=batch_size)
    _check_fail_under(fail_under, eps)
    check_place(junit)
    if claimed is not None and not 0 <= claimed <= 1:
        raise BadInput("--claimed", expected="a fraction between 0 and 1", got=claimed)
    inputs = open_inputs(model, data, arch=arch, box=box, examples=examples, other=other, trust=trust)
    folder = out or Path("runs") / "-".join(
        Path(part).name.replace(":", "-") for part in (model, inputs.data.name, threat.norm)
    )
    with progress(f"{model} on {inputs.data.name}", len(inputs.data), quiet or json) as tell:
        run = run_audit(
            inputs,
            norm=norm,
            eps=eps,
            budget=budget,
            seed=seed,
            out=folder,
            resume=resume,
            replace=replace,
            workers=count,
            batch_size=batch_size,
            smooth=smooth,
            smooth_draws=smooth_draws,
            progress=tell,
            claimed=claimed,
            command=shlex.join(["calipers", *sys.argv[1:]]),
        )
    return tell_run(run, folder, quiet, json, fail_under, junit)


@app.command
def report(run: Path, /, *, out: Path | None = None) -> int:
    """Write the report of a finished run again, as one self-contained page.

    For example:

        calipers report runs/digits --out page.html

    Parameters
    ----------
    run
        The run folder.
    out
        The page; report.html in the run folder by default.
    """
    from calipers import report as room
    from calipers.audit import read_run

    say(str(room.write(read_run(run), out or run / "report.html")))
    return 0


@app.command
def compare(first: Path, second: Path, /, *others: Path, out: Path | None = None) -> int:
    """Set finished runs side by side, with an exact test on the examples on which they differ.

    For example:

        calipers compare runs/before runs/after

        calipers compare runs/before runs/after --out page.html

    Parameters
    ----------
    first
        A run folder.
    second
        Another.
    others
        And more.
    out
        Also write one self-contained page.
    """
    from calipers import report as room
    from calipers.audit import read_run

    runs = [read_run(folder) for folder in (first, second, *others)]
    say(room.side_by_side(runs))
    if out is not None:
        say(f"page: {room.write_comparison(runs, out)}")
    return 0


def _check_fail_under(least: float | None, eps: tuple[float, ...]) -> None:
    """A threshold that means something: a fraction, of what is proved at an eps."""
    if least is None:
        return
    if not 0 <= least <= 1:
        raise BadInput("--fail-under", expected="a fraction from 0 to 1", got=least)
    if not eps:
        raise BadInput("--fail-under", expected="an --eps to prove robustness at", got="none")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    keep_freed_memory()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; its exit status.

    Arguments:
        arguments: the words after ``calipers``; those of this process by default.

    For example:
        >>> run(["--version"])
        0.1.0
        0
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with warnings_in_a_line(quiet=lambda: "--quiet" in words):
            status = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        complain(str(complaint(error)))
        return 2
    except BadInput as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt as stop:
        # Who was stopped knows what is kept.
        complain(str(stop) or "stopped")
        return 130
    except OSError as error:
        complain(f"{error.filename or 'system'}: {error.strerror or error}")
        return 2
    except Exception as error:
        # SandwichBroken says everything itself; of anything else the developers need to know where it happened.
        if type(error).__name__ != "SandwichBroken":
            traceback.print_exc()
        complain(f"{type(error).__name__}: {error}")
        return 3
    return status if isinstance(status, int) else 0
