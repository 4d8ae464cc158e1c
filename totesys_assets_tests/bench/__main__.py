"""Runs the bench as a program of its own: ``python -m totesys_assets_tests.bench``."""

from totesys_assets.commands import interrupts
from totesys_assets_tests.bench.command import bench

if __name__ == "__main__":
    interrupts.install()
    try:
        bench(prog_name="python -m totesys_assets_tests.bench")
    except SystemExit as end:
        interrupts.leave(end.code if isinstance(end.code, int) else 1)
