#!/usr/bin/env bash
# Scrubs and sketches a corpus with a Slurm array, then does the rest of the run in one job, that of
# train.sbatch: it is queued again where it was preempted.
#
#   examples/cluster/slurm.sh RUN.yaml [WORKERS] [STAGE ...]
#
# WORKERS (16) array tasks work on each STAGE in turn: "scrub dedup", or "dedup scrub" for a run file
# with dedup.before_scrub. All jobs see the run file, its keys and its workspace by the same path.
# Partition, memory and time come from Slurm's own variables (SBATCH_PARTITION, SBATCH_MEM_PER_NODE,
# SBATCH_TIMELIMIT); set scrub.processes to the cores of a task. A task that was killed is submitted
# again by this same script: what is done is not done twice.
set -euo pipefail

run_file=$(realpath "${1:?usage: slurm.sh RUN.yaml [WORKERS] [STAGE ...]}")
run=$(printf %q "$run_file")
here=$(dirname "$(realpath "$0")")
workers=${2:-16}
stages=("${@:3}")
[ ${#stages[@]} -gt 0 ] || stages=(scrub dedup)

submit() { # name, job that must end well before, command, further options
  sbatch --parsable --job-name "dpmlm-$1" ${2:+--dependency "afterok:$2"} "${@:4}" --wrap "$3"
}

last=$(submit corpus "" "dpmlm run $run --until corpus")
for stage in "${stages[@]}"; do
  # shellcheck disable=SC2016  # the variables are those of the array task
  last=$(submit "$stage" "$last" \
    "dpmlm run $run --shards $stage --rank \$SLURM_ARRAY_TASK_ID --world-size $workers" \
    --array "0-$((workers - 1))")
  last=$(submit "$stage-end" "$last" "dpmlm run $run --until $stage")
done
DPMLM_CLUSTER=${DPMLM_CLUSTER:-$here} sbatch --parsable --job-name dpmlm-rest \
  --dependency "afterok:$last" "$here/train.sbatch" "$run_file"
