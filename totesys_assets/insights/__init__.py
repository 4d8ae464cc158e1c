"""Insights: the questions that analysts ask of the warehouse, and who reads it to answer them.

Belongs here: questions with their SQL, and sessions that may only read. Does not belong here: how answers are shown.
"""
