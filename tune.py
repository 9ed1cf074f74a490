"""Search the hyper-parameters of a config; each trial is an ordinary run of train.py.

    python tune.py --config configs/digits/mlp.yaml --search configs/search/digits_mlp.yaml
    python tune.py --config … --search … --workers 4
    python tune.py --config … --config configs/trainer/bf16.yaml --search … --trainer.max_epochs 5

Other options are passed to train.py in every trial. Trials are the runs of an experiment named
after the search file (or by `--experiment`); runs/<experiment>/study/ holds Optuna's database,
figures, and best.yaml, a config for train.py.

The same command continues an interrupted study: unfinished trials resume from their last
checkpoint. Raise `trials:` in the search file for more trials. Trials validate but never test.
"""

import argparse
import gc
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help is answered before torch is imported
    from tuning.study import SharedStudy


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("tune.py", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.usage = "tune.py --config CONFIG … --search SEARCH [--workers N] [train.py's options]"
    add = made.add_argument
    add("--search", type=Path, required=True, metavar="SEARCH", help="what to search, as YAML")
    add("--workers", type=int, default=1, metavar="N", help="processes that train trials (1)")
    add("--worker", type=int, help=argparse.SUPPRESS)  # which of them this one is
    return made


def main(args: list[str] | None = None) -> Path:
    """Run the command line; the same from Python: `main(["--config", …, "--search", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The study's folder.

    Raises:
        SystemExit: With code 2 after a user's mistake, reported in one message on stderr; 75 when
            a signal stopped the study (the same command continues it); 1 if no trial finished.
    """
    from engine.process import escape_unencodable_output, prepare_process

    escape_unencodable_output()
    given = sys.argv[1:] if args is None else list(args)
    options, arguments = parser().parse_known_args(given)
    from engine.errors import exit_on_user_error
    from engine.guards.preemption import EXIT_CODE, Preempted

    prepare_process()
    try:
        with exit_on_user_error("tune.py"):
            return tune(options, arguments, given)
    except Preempted as stop:
        sys.stderr.write(f"tune.py: {stop} Run the same command to continue the study.\n")
        sys.exit(EXIT_CODE)


def tune(options: argparse.Namespace, arguments: list[str], given: list[str]) -> Path:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        import optuna
    except ImportError as error:
        raise MisconfigurationException(
            "tune.py needs the optional package `optuna`: pip install 'optuna>=4.0'."
        ) from error
    from tuning.plan import check_parameters, check_run, read_plan, trial_arguments
    from tuning.search import read_search
    from tuning.study import DATABASE, SharedStudy

    if options.workers < 1:
        raise MisconfigurationException(f"--workers is {options.workers}; it must be 1 or more.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = read_search(options.search)
    plan = read_plan(arguments, options.search)
    folder = plan.runs_of_experiment / "study"
    if options.worker is None:
        check_parameters(search, plan.arguments, options.search)
        if not (folder / DATABASE).exists():
            check_run(search, plan.arguments, options.search)
    shared = SharedStudy(folder, search, plan.shared)
    if options.worker is None and options.workers > 1 and not shared.done():
        start_workers(given, options.workers)
        if not shared.done():
            sys.exit("tune.py: all workers died; run the same command to continue the study.")
    else:
        if options.worker is not None:
            share_cores(options.workers)
        train_trials(shared, trial_arguments(plan.arguments, options.worker or 0))
    if options.worker is None:
        tell(shared, plan.arguments, given)
    return folder


def train_trials(shared: "SharedStudy", arguments: list[str]) -> None:
    """Train trials until none is left; a trial that fails is reported and recorded."""
    import optuna
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from cli.diagnosis import source_location
    from engine.guards.preemption import Preempted
    from tuning.report import line
    from tuning.trial import train

    with shared.at_work():
        while (trial := shared.next_trial()) is not None:
            state, value = optuna.trial.TrialState.COMPLETE, None
            try:
                value = train(trial, shared.search, arguments)
            except optuna.TrialPruned:
                state = optuna.trial.TrialState.PRUNED
            except Preempted:
                raise
            except Exception as error:
                state = optuna.trial.TrialState.FAIL
                known = isinstance(error, MisconfigurationException)
                told = (
                    f"{error}"
                    if known
                    else f"{source_location(error)}{type(error).__name__}: {error}"
                )
                trial.set_user_attr("error", told)
            free_memory()
            print(line(shared.study.tell(trial, value, state), shared.search.metric), flush=True)


def free_memory() -> None:
    """Free the memory of the previous trial."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def share_cores(workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def start_workers(given: list[str], number: int) -> None:
    """Run this command in several worker processes and wait for all.

    Raises:
        Preempted: After a signal, when every worker has saved its checkpoint.
    """
    from engine.guards.preemption import SIGNALS, Preempted

    def stop(told: int, frame: Any) -> None:
        raise Preempted(f"stopped by {signal.Signals(told).name}.")

    before = {told: signal.signal(told, stop) for told in SIGNALS}
    # In sessions of their own, so that Ctrl-C reaches this process only, which terminates them.
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *given, "--worker", str(worker)],
            start_new_session=True,
        )
        for worker in range(number)
    ]
    try:
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        for told, handler in before.items():
            signal.signal(told, handler)


def tell(shared: "SharedStudy", arguments: Sequence[str], given: list[str]) -> None:
    """Print the table, draw the figures, write best.yaml."""
    from rich.console import Console

    from tuning.plan import best_config
    from tuning.report import preamble, show, table, write_figures

    trials = shared.trials()
    Console().print(table(trials, shared.search))
    if not any(trial.state.name == "COMPLETE" for trial in trials):
        errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        sys.exit(f"tune.py: no trial finished; {errors[-1] if errors else 'all pruned'}")
    best = shared.study.best_trial
    file = shared.folder / "best.yaml"
    config = best_config(arguments, best.params, f"{shared.study.study_name}-best")
    file.write_text(preamble(shared, best, given, file) + config)
    figures = write_figures(shared.study, shared.folder, shared.search.metric)
    print(f"best: trial {best.number}, {shared.search.metric} {show(best.value)}")
    print(f"Figures ({shared.folder}): {', '.join(path.name for path in figures)}")
    print(f"train and test it: python train.py fit --config {file}")
    print(f"runs: {shared.folder.parent}")
    print(f"study: {shared.folder}")


if __name__ == "__main__":
    main()
