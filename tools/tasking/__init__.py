"""What ``tools/tasks`` measures: tasks that move with their connections, and what kills do to that."""
