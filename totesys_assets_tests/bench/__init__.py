"""How fast it is: scenarios of ``totesys refresh`` and ``up``, each measured as the process that a user starts."""
