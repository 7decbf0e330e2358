"""A Django project that the faults meet: the project's own site with one pool, and short times for jobs."""
