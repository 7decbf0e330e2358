"""One pool, as pure code: facts go in, actions come out, without I/O and without a clock.

Read `pool` first, then what it is made of: calls (`call`, `call_queue`, `admission`, `dispatcher`) and workers
(`worker`, `worker_set`, `recycle_policy`, `start_gate`, `template_state`). `actions` lists all that a pool can order.
"""
