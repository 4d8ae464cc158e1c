"""Dagster's webserver, guarded: it has no login, and takes from a browser what only its own pages send.

``python -m totesys_assets.webserver`` takes the place of ``dagster-webserver``, with the same options. Decision 71.
"""
