"""The pages of the dashboard: one module each, with a function ``draw`` that asks questions and draws the answers.

The folder is not called pages: Streamlit would run each file of such a folder as a page by itself.
"""
