"""The life of a worker or template process.

Read `boot` (the document that configures it), `worker` (a worker from start to exit), `template`, `template_safety`
and `after_fork` (workers that are forked). `parent_death` ties a process to its parent; `shared_page` outlives a killed
worker; `stacks`, `process_title` and `vitals` are what the process shows of itself.
"""
