"""Adapters on real data that ships in packages. Each is the subject of a chapter in docs/tutorial/first-adapter.md."""
