"""Example adapters with real data from installed packages. Each has a chapter in docs/tutorial/first-adapter.md."""
