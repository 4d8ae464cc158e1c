"""The dashboard: pages of answers that are live from the warehouse, drawn by Streamlit and Altair.

Belongs here: what is drawn, and how. Does not belong here: any SQL (insights/questions/), and sessions with the
warehouse (insights/reading.py).
"""
