"""The command line: `snakepit ...`, and `manage.py snakepit ...`, which hands its arguments to the same `run`."""
