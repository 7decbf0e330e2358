"""Django's tasks on a warm pool: `TASKS` names the backend, and a pool runs the adapter.

enqueue() ─▶ backend ─▶ a job (a row, with lease and retries) ─▶ Celery ─▶ adapter in a worker, where Django is set up

`api` gives the names of `django.tasks` (Django 6.0 and later) or of the package `django-tasks` (Django 5.2).
"""
