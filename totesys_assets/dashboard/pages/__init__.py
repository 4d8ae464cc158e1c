"""The pages of the dashboard: one module each, with a function ``draw`` that asks questions and draws the answers."""
