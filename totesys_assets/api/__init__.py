"""The API: tables and questions of the warehouse over HTTP, for programs. It only reads.

Belongs here: routes, pages, streams and keys. Does not belong here: questions and their sessions (insights/).
"""
