"""Orders of operators, each with its audit record, for the dashboard, the admin, REST and the shell.

Read `orders` first. `change_preview` computes what an order would do; `node_drain` is the drain of a whole node.
"""
