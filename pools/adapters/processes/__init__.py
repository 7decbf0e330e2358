"""Worker and template processes, as children of the broker.

Read `launcher` (starts them), `worker_resources` (what a worker gets), `template_process` (forks) and `process` (one
child: output, exit, memory). `vitals` reads memory and CPU, `stacks` reads Python stacks. `reaper` and `orphans` end
what a broker or a worker left behind.
"""
