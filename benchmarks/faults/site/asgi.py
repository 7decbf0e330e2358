"""What `snakepit up` serves."""

from snakepit.site.asgi import application

__all__ = ["application"]
