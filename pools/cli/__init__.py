"""The command line: `snakepit ...`, and `manage.py snakepit ...`, which passes its arguments to the same `run`."""
