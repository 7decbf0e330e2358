"""Workers as actors of a Ray cluster: `python -m benchmarks.ray_workers`. See docs/explanation/ray.md."""
