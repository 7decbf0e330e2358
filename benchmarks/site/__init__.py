"""A Django project for the measurements over HTTP: the project's own site, one pool, and a bare view beside it."""
