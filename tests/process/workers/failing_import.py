import no_such_dependency  # noqa: F401


class Late: ...
