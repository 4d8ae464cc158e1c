"""How fast it is: the scenarios of ``totesys bench``, each measured as the whole process that a user starts."""
