"""Who is where: the users of organisations, their projects, and the invites that bring them in."""
