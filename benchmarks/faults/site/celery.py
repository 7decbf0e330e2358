"""What `snakepit up` runs as worker and beat."""

from snakepit.site.celery import app

__all__ = ["app"]
