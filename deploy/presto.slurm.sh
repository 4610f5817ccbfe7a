#!/usr/bin/env bash
# Trains Presto on several nodes under Slurm: srun starts one rank per GPU. What follows the script's name are the arguments
# of `longtake-presto train`:
#
#   sbatch --nodes 8 deploy/presto.slurm.sh latents -m allegro/ -r pretrain -o run
#
# Data, model and run must have the same names on all nodes. Five minutes before the time limit the ranks are told to stop:
# they finish their step and write a checkpoint, and the job is queued again. A run that is done, or at fault, is not.
#
# PYTHON: the interpreter of the environment that longtake is installed in; python3 unless given.
#SBATCH --job-name=presto
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHON=${PYTHON:-python3}

told=
tell() {
  told=yes
  scancel --signal=TERM "$SLURM_JOB_ID" # To the ranks, and not to this script.
}
trap tell TERM

# shellcheck disable=SC2016 # Each task has its own numbers.
srun --kill-on-bad-exit=0 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec "$PYTHON" -m longtake.presto train "$@"
' rank "$@" &
ranks=$!
code=0
wait "$ranks" || code=$?
while kill -0 "$ranks" 2>/dev/null; do # A signal ends `wait`, and not the ranks.
  code=0
  wait "$ranks" || code=$?
done

if [ -n "$told" ] && [ "$code" -ne 0 ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
