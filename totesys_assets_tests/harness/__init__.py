"""The harness: what kills, disturbs and checks whole platforms."""
