"""Shared by REST API, admin and dashboard: errors as HTTP responses, the acting user, transactions of views."""
