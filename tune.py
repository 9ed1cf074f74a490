"""Search the hyper-parameters of a config; each trial is an ordinary run of train.py.

    python tune.py --config configs/digits/mlp.yaml --search configs/search/digits_mlp.yaml
    python tune.py --config … --search … --workers 4
    python tune.py --config … --config configs/trainer/bf16.yaml --search … --trainer.max_epochs 5

All other arguments are those of train.py and apply to every trial. Trials are runs of an
experiment named by `--experiment` or after the search file. runs/<experiment>/study/ contains the
Optuna study (study.db), its figures, and best.yaml, a config for train.py.

Run the same command to continue an interrupted study: unfinished trials resume from their last
checkpoint. Raise `trials:` in the search file to add trials. Trials are compared by validation
metrics and are not tested; train best.yaml to get test metrics.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help does not import torch
    from tuning.study import SharedStudy


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tune.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "tune.py --config CONFIG … --search SEARCH [--workers N] [train.py's options]"
    add = parser.add_argument
    add("--search", type=Path, required=True, metavar="SEARCH", help="YAML file of the search")
    add("--workers", type=int, default=1, metavar="N", help="processes that run trials (1)")
    add("--worker", type=int, help=argparse.SUPPRESS)  # index of this process, in a worker
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run the command line; from Python: `main(["--config", …, "--search", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The study's folder.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error, 75 when a signal
            stopped the study (the same command continues it), 1 if no trial completed.
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
    except Preempted:
        if options.worker is None:
            sys.stderr.write("tune.py: interrupted. Run the same command to continue the study.\n")
        sys.exit(EXIT_CODE)


def tune(options: argparse.Namespace, arguments: list[str], given: list[str]) -> Path:
    """Check the search, run its trials and report.

    Args:
        options: Options of tune.py.
        arguments: Arguments of train.py.
        given: All arguments as given.
    """
    from engine.errors import UserError

    try:
        import optuna
    except ImportError as error:
        raise UserError("tune.py needs the package `optuna`: pip install 'optuna>=4.0'.") from error
    import torch

    from tuning.command import check_metric, check_parameters, parse_command, trial_arguments
    from tuning.report import format_trial
    from tuning.search import read_search
    from tuning.study import DATABASE, SharedStudy
    from tuning.workers import run_trials, run_workers

    if options.workers < 1:
        raise UserError(f"--workers must be at least 1, not {options.workers}.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_worker = options.worker is not None
    search = read_search(options.search)
    command = parse_command(arguments, options.search)
    folder = command.runs_of_experiment / "study"
    if not is_worker:
        check_parameters(search, command.arguments, options.search)
        if not (folder / DATABASE).exists():
            check_metric(search, command.arguments, options.search)
    study = SharedStudy(folder, search, command.shared_config())
    if not is_worker and options.workers > 1 and not study.is_done():
        run_workers([sys.executable, str(Path(__file__).resolve()), *given], options.workers)
        if not study.is_done():
            sys.exit("tune.py: all workers died. Run the same command to continue the study.")
    else:
        if is_worker:
            torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
        for trial in run_trials(study, trial_arguments(command.arguments, options.worker or 0)):
            print(format_trial(trial, search.metric), flush=True)
    if not is_worker:
        report(study, [*command.arguments], given)
    return folder


def report(study: "SharedStudy", arguments: list[str], given: list[str]) -> None:
    """Print the table of trials and write best.yaml and the figures."""
    from rich.console import Console

    from tuning.report import format_value, trial_table, write_best_config, write_figures

    trials = study.trials()
    Console().print(trial_table(trials, study.search))
    if not any(trial.state.name == "COMPLETE" for trial in trials):
        errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        sys.exit(f"tune.py: no trial completed: {errors[-1] if errors else 'all were pruned'}")
    best = study.study.best_trial
    config = write_best_config(study, arguments, given)
    figures = write_figures(study)
    print(f"best trial: {best.number}, {study.search.metric} {format_value(best.value)}")
    print(f"study ({study.folder}): {', '.join(path.name for path in [config, *figures])}")
    print(f"runs: {study.folder.parent}")
    print(f"train and test the best: python train.py fit --config {config}")


if __name__ == "__main__":
    main()
