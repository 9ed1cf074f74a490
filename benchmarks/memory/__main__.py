"""Memory of training on each device: `python -m benchmarks.memory --config …`.

    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml
    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml --measure
    python -m benchmarks.memory --config configs/openwebtext/gpt2_124m.yaml --vocab_size 50304 \\
        --devices 8 --strategy ddp -- --model.net.num_layers 48
    python -m benchmarks.memory --plan

The numbers are formulas on a network without weights. Flags after `--` go to train.py's parser.
--measure runs three steps of train.py in its own process, on a GPU if there is one (with --device
cpu on the CPU), and prints the error of the formulas. --plan prints the table of docs/scaling.md.

Weights, gradients and optimizer: Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward
training trillion parameter models", section 3 and figure 1. Activations of a GPT: Korthikanti et
al. 2022, "Reducing activation recomputation in large transformer models", section 4, adapted to the
block of modules/nets/gpt.py, whose residual stream is float32 and whose attention may be fused.
Other networks: the tensors that autograd saves are counted in a pass with fake tensors; recurrent
networks, whose kernels allocate workspaces, are run with a few rows. All numbers are for eager
mode; a compiled network saves less.
"""

import argparse
import inspect
import sys

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.memory.activations import activations, peak
from benchmarks.memory.configured import job_from
from benchmarks.memory.job import GIB, STRATEGIES, Job, Parts
from benchmarks.memory.measured import measure
from benchmarks.memory.plan import plan
from benchmarks.memory.states import host_states, states
from engine.errors import UserError, exit_on_user_error
from engine.process import prepare_process


def human_readable(size: float) -> str:
    """Format a number of bytes."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def print_job(job: Job, console: Console) -> None:
    """Print the memory of each part by formula."""
    name = type(job.net).__name__
    table = Table(title=f"{name}, {job.parameters:,} parameters, on each of {job.devices} devices")
    table.add_column("part")
    table.add_column("bytes", justify="right")
    for part, size in states(job).items():
        if size:
            table.add_row(part, human_readable(size))
    table.add_section()
    for part, size in activations(job).items():
        if size:
            table.add_row(f"activations: {part}", human_readable(size))
    table.add_section()
    table.add_row("peak of a step", human_readable(peak(job)))
    for part, size in host_states(job).items():
        table.add_row(f"CPU memory of a process: {part}", human_readable(size))
    table.caption = (
        f"{job.strategy}, {job.rows} rows per device, {job.precision}, {job.device}; by formula"
    )
    console.print(table)


def compare(job: Job, measured: Parts, console: Console) -> None:
    """Print formula, measurement and error of each part."""
    device = "CPU" if job.device == "cpu" else torch.cuda.get_device_name(0)
    table = Table(title=f"formula and measurement of three steps of train.py on {device}")
    for column in ("part", "formula", "measured", "error"):
        table.add_column(column, justify="left" if column == "part" else "right")
    model = states(job)
    for name, size in {
        "weights": model["weights"],
        "optimizer": model["optimizer"],
        "activations": sum(activations(job).values()),
        "peak": peak(job),
    }.items():
        error = f"{size / measured[name] - 1:+.1%}" if measured[name] else "–"
        table.add_row(name, human_readable(size), human_readable(measured[name]), error)
    console.print(table)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.memory", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="config of train.py; repeat to stack",
    )
    add("--devices", type=int, default=1, metavar="N", help="devices of all nodes (default: 1)")
    add("--strategy", choices=STRATEGIES, help="default: ddp for several devices, else single")
    add("--device", choices=("cpu", "cuda"), default="cuda", help="kind of device (default: cuda)")
    add("--precision", choices=("32-true", "bf16-mixed", "bf16-true"), help="default: the config's")
    add("--vocab_size", type=int, metavar="V", help="vocabulary size, if the text is not present")
    add("--measure", action="store_true", help="run three steps on this machine and compare")
    add("--plan", action="store_true", help="print the table of docs/scaling.md")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    given = sys.argv[1:] if args is None else args
    at = given.index("--") if "--" in given else len(given)
    options, flags = build_parser().parse_args(given[:at]), given[at + 1 :]
    prepare_process()
    console = Console()
    with exit_on_user_error("benchmarks.memory"):
        if options.plan:
            print(plan())
            return
        options.strategy = options.strategy or ("ddp" if options.devices > 1 else "single")
        check_options(options)
        arguments = [word for path in options.config for word in ("--config", path)] + flags
        job, task = job_from(arguments, options)
        print_job(job, console)
        if options.measure:
            compiles = "compile" in inspect.signature(type(task)).parameters
            compare(job, measure(arguments, job, compiles), console)


def check_options(options: argparse.Namespace) -> None:
    """Raise a UserError for options that contradict each other."""
    if options.measure and not torch.cuda.is_available():
        options.device = "cpu"
    if not options.config:
        raise UserError("pass --config FILE with the training to analyze, or --plan.")
    if options.devices < 1:
        raise UserError(f"--devices must be at least 1, got {options.devices}.")
    if options.strategy not in ("single", "fsdp_offload", "zero2_offload") and options.devices == 1:
        raise UserError(f"--strategy {options.strategy} needs several devices: pass --devices N.")
    if options.strategy == "single" and options.devices > 1:
        raise UserError("--strategy single needs --devices 1.")
    if options.measure and options.devices > 1:
        raise UserError("--measure runs one process on this machine: omit --devices.")
    if options.measure and options.vocab_size is not None:
        raise UserError("--measure needs the data: omit --vocab_size.")


if __name__ == "__main__":
    main()
