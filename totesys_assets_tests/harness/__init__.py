"""The harness: what interleaves, kills, disturbs and checks whole platforms."""
