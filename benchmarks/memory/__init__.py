"""Memory of training on each device, by formula and measured; see `__main__.py`."""

from benchmarks.memory.activations import (
    SavedBytes,
    activations,
    counted_activations,
    gpt_activations,
    peak,
)
from benchmarks.memory.configured import job_from
from benchmarks.memory.job import Job, Parts
from benchmarks.memory.measured import measure
from benchmarks.memory.plan import PLAN, plan, planned
from benchmarks.memory.states import host_states, optimizer_bytes, states

__all__ = [
    "PLAN",
    "Job",
    "Parts",
    "SavedBytes",
    "activations",
    "counted_activations",
    "gpt_activations",
    "host_states",
    "job_from",
    "measure",
    "optimizer_bytes",
    "peak",
    "plan",
    "planned",
    "states",
]
