"""The store, its lock and the loop of a stage in a simulated world: one seed, one history, and faults at chosen calls.

`python -m benchmarks.simulation` runs a campaign; `--seed N` replays one seed and prints its history. The code that runs is the
project's own, read anew for each simulated process; only what it asks of the machine is replaced: the disk (`disk`), the object
store (`bucket`), the clock, threads and random names (`world`).
"""
