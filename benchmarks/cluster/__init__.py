"""Three hosts in network namespaces of this machine, with a broker and a Celery worker each."""
