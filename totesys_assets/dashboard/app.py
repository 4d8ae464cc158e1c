"""The script that Streamlit runs, from the top at every change. All that is in it is in frame.py, imported once."""

from totesys_assets.dashboard.frame import main

main()
