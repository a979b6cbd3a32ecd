"""No core dumps: what a crash would write to a disk holds keys and text in clear."""

import sys


def switch_off_core_dumps() -> None:
    """Forbid core dumps to this process and all that it starts; nothing where there is no limit.

    The limit is one byte and not none: Linux passes over a limit of 0 where dumps go to a program
    (core(5)), while 1 stops both kinds.
    """
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard not in (0, 1):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
