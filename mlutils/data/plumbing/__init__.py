"""What the families of tasks stand on: archives, a cache, pipelines and rendered characters."""
