"""`python -m longtake.presto`, which is what torchrun starts."""

from longtake.presto.cli import main

main()
