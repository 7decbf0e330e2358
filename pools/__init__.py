"""The Django app: pool definitions, broker, client, jobs, REST API, admin, dashboard and command line.

Import it as `snakepit.pools`. The folder stands at the top of the repository and is linked into `snakepit/`.
"""

if __name__ != "snakepit.pools":  # a second import under another name would register every model twice
    raise ImportError(f"import snakepit.pools, not {__name__}")
