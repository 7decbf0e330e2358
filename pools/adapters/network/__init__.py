"""The broker's network listener: gRPC over TLS for callers of other hosts, beside the Unix socket.

    accept ─ limits ─▶ TLS handshake ─▶ grpclib connection ─▶ BrokerService ─ rights of the peer ─▶ broker

Read `listener` (connections and their limits), `tls` (certificates), `identity` and `keys` (rights), `health`.
"""
