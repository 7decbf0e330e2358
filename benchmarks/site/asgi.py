"""What `snakepit up` serves."""

from snakepit_site.asgi import application

__all__ = ["application"]
