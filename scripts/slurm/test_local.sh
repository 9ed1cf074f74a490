#!/usr/bin/env bash
# Test train.sbatch with SLURM daemons on this machine: a job stopped by USR1 is requeued and resumes, and its
# weights equal bit for bit those of an uninterrupted run; a cancelled job is not requeued; a killed
# process ends the job.
#
#   scripts/slurm/test_local.sh
#
# SLURM and munge are taken from PATH, otherwise Debian's packages are unpacked (not installed) into a
# temporary folder that also holds configuration, logs and state. The daemons listen on 127.0.0.1 only
# and are stopped by their process ids. Exit code 77: skipped; the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
HERE=$PWD PYTHON=${PYTHON:-$PWD/.venv/bin/python}
WORK=$(mktemp -d -t slurm-test.XXXXXX)
DAEMONS=()

skip() { echo "skipped: $1"; exit 77; }
fail() { echo "FAILED: $1"; tail -n 60 "$WORK"/*.log "$WORK"/job-*.out 2>/dev/null || true; exit 1; }
clean() {
  code=$?
  [ -z "${JOB:-}" ] || scancel "$JOB" 2>/dev/null || true
  for _ in {1..50}; do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.3; done
  for ((i = ${#DAEMONS[@]} - 1; i >= 0; i--)); do kill "${DAEMONS[i]}" 2>/dev/null || true; done
  sleep 1
  # Also stop what a job left running: all processes started here have this configuration.
  for file in /proc/[0-9]*/environ; do
    pid=${file//[!0-9]/}
    if [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] && grep -qsz "^SLURM_CONF=$WORK/" "$file"; then
      kill -9 "$pid" 2>/dev/null || true
    fi
  done
  rm -rf "$WORK"
  exit "$code"
}
trap clean EXIT
trap 'exit 130' INT TERM

# -- programs
[ "$(id -u)" = 0 ] || skip "SLURM's daemons need root"
PLUGINS=() SLURMD=slurmd SLURMCTLD=slurmctld
if ! command -v slurmctld slurmd srun munged >/dev/null; then
  command -v apt-get dpkg >/dev/null || skip "no SLURM, and no apt-get to download it"
  mkdir -p "$WORK/debs/partial" "$WORK/root"
  get() {
    apt-get install -y --no-install-recommends --download-only -o Dir::Cache::archives="$WORK/debs" \
      -o APT::Sandbox::User=root slurm-wlm munge >"$WORK/apt.log" 2>&1
  }
  get || { apt-get update >"$WORK/update.log" 2>&1 && get; } || skip "apt-get finds no slurm-wlm: $(tail -n 1 "$WORK/apt.log")"
  for deb in "$WORK"/debs/*.deb; do dpkg -x "$deb" "$WORK/root"; done
  LIBRARIES=$(dirname "$(find "$WORK/root/usr/lib" -type d -name slurm-wlm)")
  export PATH="$WORK/root/usr/bin:$WORK/root/usr/sbin:$PATH"
  export LD_LIBRARY_PATH="$LIBRARIES:$LIBRARIES/slurm-wlm"
  PLUGINS=("PluginDir=$LIBRARIES/slurm-wlm")
  SLURMCTLD=slurmctld-wlm SLURMD="slurmd-wlm -d $WORK/root/usr/sbin/slurmstepd-wlm"
fi

# -- daemons
read -r PORT1 PORT2 PORT3 < <("$PYTHON" - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in held))
PY
)
NODE=$(hostname -s)
export SLURM_CONF="$WORK/slurm.conf"
mkdir -p "$WORK/state" "$WORK/spool" "$WORK/munge"
chmod 755 "$WORK" && chmod 700 "$WORK/munge"
dd if=/dev/urandom of="$WORK/munge/key" bs=1 count=1024 2>/dev/null
chmod 400 "$WORK/munge/key"
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=$PORT1
SlurmdPort=$PORT2
AuthType=auth/munge
AuthInfo=socket=$WORK/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
JobRequeue=1
ReturnToService=2
SchedulerParameters=sched_interval=2
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
${PLUGINS[*]:-}
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=2 RealMemory=512
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
munged --foreground --force --key-file "$WORK/munge/key" --socket "$WORK/munge/socket" \
  --pid-file "$WORK/munge/pid" --log-file "$WORK/munged.log" --seed-file "$WORK/munge/seed" 2>"$WORK/munged.err.log" &
DAEMONS+=($!)
for _ in {1..50}; do [ -S "$WORK/munge/socket" ] && break; sleep 0.1; done
$SLURMCTLD -D -f "$SLURM_CONF" >/dev/null 2>&1 &
DAEMONS+=($!)
$SLURMD -D -f "$SLURM_CONF" -N "$NODE" >/dev/null 2>&1 &
DAEMONS+=($!)
for _ in {1..100}; do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 0.2; done
sinfo -h -o %T 2>/dev/null | grep -q idle || fail "SLURM does not start"
echo "SLURM with one node: $(srun --version), $(sinfo -h -o '%c CPUs, %T')"

# -- an uninterrupted run without SLURM
STEPS=${STEPS:-600}
ARGUMENTS=(--config "$HERE/tests/configs/digits/tiny.yaml" --trainer.max_epochs 1000 --trainer.max_steps "$STEPS"
  --model.net.conv_dropout 0.2 --data.batch_size 64 --trainer.accelerator cpu --test_after_fit false)
export OMP_NUM_THREADS=1
cd "$WORK"
for path in train.py configs scripts; do ln -s "$HERE/$path" .; done
"$PYTHON" train.py fit "${ARGUMENTS[@]}" --config configs/trainer/ddp.yaml --runs_dir uninterrupted \
  --trainer.enable_progress_bar false >"$WORK/uninterrupted.log" 2>&1 || fail "the uninterrupted run"

submit() {  # sizes for a small machine; everything else is as users have it
  sbatch --parsable --nodes 1 --ntasks-per-node 2 --cpus-per-task 1 --output "$WORK/job-%j.out" \
    scripts/slurm/train.sbatch "$@"
}
await() {  # await SECONDS COMMAND…
  local end=$((SECONDS + $1)); shift
  until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.3; done
}
state() { scontrol --oneliner show job "$JOB" | sed 's/.*JobState=\([A-Z]*\).*/\1/'; }
is() { [ "$(state)" = "$1" ]; }
says() { grep -q "$1" "$WORK/job-$JOB.out" 2>/dev/null; }
trains() { compgen -G "runs/job-$JOB/*/001/checkpoints/last.ckpt" >/dev/null; }
learns() { [ "$(cat "$WORK/job-$JOB.out" 2>/dev/null | grep -cE ' parameters (learns|.*on )|\([0-9,]+ parameters\)')" -ge "$1" ]; }

# -- the same run as a job: USR1, as SLURM sends it before the time limit, then requeue and resume
export PYTHON MASTER_ADDR=127.0.0.1 MASTER_PORT=$PORT3
JOB=$(submit "${ARGUMENTS[@]}")
await 240 trains || fail "job $JOB does not start training"
scancel --signal=USR1 "$JOB"
await 60 says 'Interrupted by SIGUSR1 at step' || fail "job $JOB does not stop between two steps"
echo "job $JOB: $(grep -o 'Interrupted by SIGUSR1 at step [0-9]*' "$WORK/job-$JOB.out" | head -n 1)"
await 240 learns 2 || fail "job $JOB does not resume"
await 240 is COMPLETED || fail "job $JOB does not end: $(state)"
scontrol --oneliner show job "$JOB" | grep -q 'Restarts=1' || fail "job $JOB did not restart once"
[ "$(echo runs/job-"$JOB"/*/*)" = "runs/job-$JOB/digits-tiny/001" ] || fail "other run folders: $(echo runs/*/*/*)"
! says auto_requeue && [ -z "$(find . -name 'hpc_ckpt*')" ] || fail "Lightning requeues as well"
! says Warning || fail "a warning in the output"
"$PYTHON" - uninterrupted/digits-tiny/001 "runs/job-$JOB/digits-tiny/001" <<'PY' || fail "the resumed run differs"
import sys, torch
from pathlib import Path

def leaves(tree, path=""):
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree

a, b = (dict(leaves({k: v for k, v in torch.load(Path(f, "checkpoints/last.ckpt"), weights_only=True).items()
        if k in ("state_dict", "optimizer_states", "global_step")})) for f in sys.argv[1:])
assert a.keys() == b.keys() and a
for key, value in a.items():
    same = torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key]
    assert same, f"{key} differs"
assert Path(sys.argv[1], "metrics.csv").read_text() == Path(sys.argv[2], "metrics.csv").read_text()
print(f"step {a['/global_step']}: weights, optimizer and metrics.csv equal those of the uninterrupted run")
PY

# -- a cancelled job saves a checkpoint and is not requeued
JOB=$(submit "${ARGUMENTS[@]}" --trainer.max_steps 1000000)
await 240 trains || fail "job $JOB does not start training"
scancel "$JOB"
await 60 says 'Interrupted by SIGTERM at step' || fail "job $JOB does not save when it is cancelled"
await 60 is CANCELLED || fail "job $JOB was cancelled and is $(state)"
echo "job $JOB: cancelled, saved, and not requeued"

# -- a killed process ends the job
JOB=$(submit "${ARGUMENTS[@]}" --trainer.max_steps 1000000)
await 240 trains || fail "job $JOB does not start training"
victim() {
  for file in /proc/[0-9]*/environ; do
    if tr '\0' '\n' <"$file" 2>/dev/null | grep -q "^SLURM_JOB_ID=$JOB$" &&
      tr '\0' '\n' <"$file" | grep -q '^SLURM_PROCID=1$'; then
      echo "${file//[!0-9]/}"
    fi
  done | head -n 1
}
kill -9 "$(victim)"
await 60 is FAILED || fail "job $JOB does not end after one of its processes was killed: $(state)"
echo "job $JOB: failed after process 1 was killed"
echo "passed after $SECONDS seconds"
