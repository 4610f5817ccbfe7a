#!/usr/bin/env bash
# A run as a Slurm array: each task takes its part of the videos, on one node, and needs no cluster beside Slurm. A last task,
# number 0, without a part, does what needs the whole corpus.
#
#   export VIDEOS='/shared/films' RECIPE=/shared/mine.yaml WORKSPACE=/shared/workspace
#   job=$(sbatch --parsable deploy/slurm.sh)
#   sbatch --dependency="afterany:$job" --array=0 deploy/slurm.sh
#   longtake status "$WORKSPACE" --watch
#
# PARTS has to be the array's last number, and stays what it is for as long as parts are run: a task that failed is run again by
# `sbatch --array=7 deploy/slurm.sh`. The workspace is a folder that all nodes have mounted (with locks: NFS v4, Lustre with
# flock), or a URI. The environment goes along, and with it the credentials of object stores; no secret is in an argument.
#SBATCH --job-name=longtake
#SBATCH --array=1-64
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=longtake-%A-%a.log
set -euo pipefail

PARTS=${PARTS:-64}
: "${VIDEOS:?which films: a folder, a list, or a glob}" "${RECIPE:?a recipe that ships, or a file}" "${WORKSPACE:?where to}"
cores=${SLURM_CPUS_PER_TASK:-$(nproc)}

arguments=(-r "$RECIPE" -o "$WORKSPACE" --workers "$cores")
if [[ ${SLURM_ARRAY_TASK_ID:-0} != 0 ]]; then
  arguments+=(--part "$SLURM_ARRAY_TASK_ID/$PARTS")
fi
exec longtake curate "$VIDEOS" "${arguments[@]}"
