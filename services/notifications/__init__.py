"""Tells the world outside: owners of what was spent, other billing systems of what was used."""
