"""The Django project of the demo and of the container image. Import it as `snakepit.site`."""
