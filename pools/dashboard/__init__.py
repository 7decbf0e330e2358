"""The operator dashboard: server-rendered pages whose live regions are sent again when they change."""
