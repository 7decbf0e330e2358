"""The broker's ports, implemented: processes, gRPC, records, interpreters. `node` joins them and runs a broker."""
