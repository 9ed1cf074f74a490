"""Memory that a training takes on each device: `python -m benchmarks.memory --config …`.

    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml
    python -m benchmarks.memory --config configs/shakespeare/gpt.yaml --measure
    python -m benchmarks.memory --config configs/openwebtext/gpt2_124m.yaml --vocab_size 50304 \\
        --devices 8 --strategy ddp -- --model.net.num_layers 48
    python -m benchmarks.memory --plan

Formulas: no net is trained, and none has any weights. Flags after `--` go to train.py's parser.
--measure runs three steps of train.py, in a process of its own, on a GPU where there is one (else,
or by --device cpu, on the CPU), and says how far off the formulas are there. --plan prints the
table of docs/scaling.md.

Weights, gradients and optimizer: Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward
training trillion parameter models", section 3 and figure 1. Activations of a GPT: Korthikanti et
al. 2022, "Reducing activation recomputation in large transformer models", section 4, counted anew
for the block of modules/nets/gpt.py, which keeps its stream in float32 and may use a fused
attention. Other nets: every tensor that autograd keeps is counted on a pass with tensors that have
shapes and no contents; recurrent ones, whose kernels hide what they keep, with few rows for true.
All of it for eager mode: a compiled net keeps less.
"""

import argparse
import inspect
import sys

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.table import Table

from benchmarks.memory.activations import activations, peak
from benchmarks.memory.configured import job_from
from benchmarks.memory.job import GIB, STRATEGIES, Job, Parts
from benchmarks.memory.measured import measure
from benchmarks.memory.plan import plan
from benchmarks.memory.states import states
from engine.errors import exit_on_user_error
from engine.process import prepare_process


def human(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def show(job: Job, console: Console) -> None:
    name = type(job.net).__name__
    table = Table(title=f"{name}, {job.parameters:,} parameters, on each of {job.devices} devices")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    for part, size in states(job).items():
        if size:
            table.add_row(part, human(size))
    table.add_section()
    for part, size in activations(job).items():
        if size:
            table.add_row(f"activations: {part}", human(size))
    table.add_section()
    table.add_row("peak of a step", human(peak(job)))
    table.caption = (
        f"{job.strategy}, {job.rows} rows a device, {job.precision}, {job.device}; by formula"
    )
    console.print(table)


def compare(job: Job, seen: Parts, console: Console) -> None:
    told = "CPU" if job.device == "cpu" else torch.cuda.get_device_name(0)
    table = Table(title=f"formula against three steps of train.py on this {told}")
    for column in ("what", "formula", "measured", "error"):
        table.add_column(column, justify="left" if column == "what" else "right")
    model = states(job)
    for name, size in {
        "weights": model["weights"],
        "optimizer": model["optimizer"],
        "activations": sum(activations(job).values()),
        "peak": peak(job),
    }.items():
        error = f"{size / seen[name] - 1:+.1%}" if seen[name] else "–"
        table.add_row(name, human(size), human(seen[name]), error)
    console.print(table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m benchmarks.memory", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--config", action="append", default=[], metavar="FILE", help="of train.py, stackable")
    add("--devices", type=int, default=1, metavar="N", help="of all nodes together (1)")
    add("--strategy", choices=STRATEGIES, help="ddp where there are several devices, else single")
    add("--device", choices=("cpu", "cuda"), default="cuda", help="kind of device (cuda)")
    add("--precision", choices=("32-true", "bf16-mixed", "bf16-true"), help="else the config's")
    add("--vocab_size", type=int, metavar="V", help="of a text that is not at hand")
    add("--measure", action="store_true", help="also run three steps on this machine and compare")
    add("--plan", action="store_true", help="print the table of docs/scaling.md")
    return made


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    given = sys.argv[1:] if args is None else args
    at = given.index("--") if "--" in given else len(given)
    options, flags = parser().parse_args(given[:at]), given[at + 1 :]
    prepare_process()
    console = Console()
    with exit_on_user_error("benchmarks.memory"):
        if options.plan:
            print(plan())
            return
        options.strategy = options.strategy or ("ddp" if options.devices > 1 else "single")
        check(options)
        arguments = [word for path in options.config for word in ("--config", path)] + flags
        job, task = job_from(arguments, options)
        show(job, console)
        if options.measure:
            compiles = "compile" in inspect.signature(type(task)).parameters
            compare(job, measure(arguments, job.precision, compiles, job.device), console)


def check(options: argparse.Namespace) -> None:
    """Refuse what makes no sense together."""
    if options.measure and not torch.cuda.is_available():
        options.device = "cpu"
    for complaint, justified in {
        "name what would be trained by --config, or print the --plan.": not options.config,
        f"--devices is {options.devices}: it must be 1 or more.": options.devices < 1,
        f"--strategy {options.strategy} is for several devices: name them by --devices.": (
            options.strategy not in ("single",) and options.devices == 1
        ),
        "--strategy single is for one device.": (
            options.strategy == "single" and options.devices > 1
        ),
        "--measure runs one process on this machine: leave --devices out.": (
            options.measure and options.devices > 1
        ),
        "--measure needs the data: leave --vocab_size out.": (
            options.measure and options.vocab_size is not None
        ),
    }.items():
        if justified:
            raise MisconfigurationException(complaint)


if __name__ == "__main__":
    main()
