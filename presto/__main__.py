"""`python -m presto`, which is what torchrun starts."""

from presto.cli import main

main()
