"""The harness: what interleaves, kills, disturbs and checks whole platforms."""

from pathlib import Path

# Rates of two weeks: those of all years take a second to load.
RATES = Path(__file__).parents[1] / "data" / "rates.zip"
