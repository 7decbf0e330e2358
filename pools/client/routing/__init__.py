"""Calls find a node: which node takes a call, and what happens if it cannot.

RoutedClient ─▶ at rest: the broker of this host, by the plain client
     └─ a refusal ─▶ Trip ─▶ Router ─▶ policy.order(what the nodes reported) ─▶ the plain client of another node
                               ▲
                     Watch: Node rows or DNS, and the status of each node, once a second while calls are routed
"""
