"""Where every process of migemu begins and ends: the command line, both nodes, and what they start themselves.

    migemu, migemu-source, migemu-dest      the console scripts
    python -m migemu, -m source_node, ...   the same
    child(...)                              a node as a process of its own, as `migemu run` starts it

Rules
    1. Standard input, output and error are made safe before anything else (`migemu.stdio`).
    2. Nothing is run from the folder where the user stands: an `attr.py` that lies there is no business of ours. Python
       puts that folder first where it is started with `-m` or `-c`; it is taken out, here and for all processes that
       are started from here (`-P`, PYTHONSAFEPATH). Where migemu itself lies there, as in a checkout that is not
       installed, it goes to the end, behind the standard library and what is installed.
    3. What the machine does not give - memory, descriptors, threads - is one line. Everything else that nobody has
       caught is a bug of ours, and keeps its traceback.
    4. A result that could not be printed is told, and is exit code 3 if all else was well.

What cannot be kept out: with `python -m`, Python itself imports a few modules before the first line of ours; who wants
to be sure says `python -P -m`, or uses the scripts.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Final, NoReturn

from migemu import stdio

#: Descriptors that a node with a few connections needs (measured: 30 with a checkpoint, a trace and a dump).
_DESCRIPTORS_MIN: Final = 48
#: Address space that a node needs without any memory of a guest (measured: 225 MiB do, with 195 libuv aborts, and
#: with 150 OpenBLAS gives up in its own words).
_ADDRESSES_MIN: Final = 256 << 20
#: Package -> its name for the user, and where its command `main` is.
_PROGRAMS: Final = {
    "migemu": ("migemu", "migemu.cli.main"),
    "source_node": ("migemu-source", "source_node.__main__"),
    "dest_node": ("migemu-dest", "dest_node.__main__"),
}
_INTERRUPTED: Final = 130
_BROKEN: Final = 3
_BUG: Final = 1
#: The folder that migemu and its nodes lie in.
_HOME: Final = os.path.abspath(os.path.join(__file__, "../../.."))  # noqa: PTH100, PTH118 - it is early


def migemu() -> NoReturn:
    """Entry point of the command `migemu`."""
    begin("migemu")


def source() -> NoReturn:
    """Entry point of the command `migemu-source`."""
    begin("source_node")


def destination() -> NoReturn:
    """Entry point of the command `migemu-dest`."""
    begin("dest_node")


def child(package: str) -> list[str]:
    """The command, without its arguments, that makes the program of `package` a process of its own."""
    there = f"import sys; sys.path.append({_HOME!r}); from migemu.process.start import begin; begin({package!r})"
    return [sys.executable, "-P", "-c", there]


def begin(package: str) -> NoReturn:
    """Be the program of `package`, from the first line to the exit code."""
    standard = stdio.secure()
    _leave_the_folder()
    code = _run(*_PROGRAMS[package])
    try:
        if (why := standard.settle()) and code in (0, _BROKEN):
            code = _tell(f"standard output: {why}; what was to be printed there was not; nothing else is lost", _BROKEN)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    standard.end()
    sys.exit(code)


def _leave_the_folder() -> None:
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        here = os.getcwd()  # noqa: PTH109
    except OSError:
        here = ""  # it has been removed
    if sys.path and sys.path[0] in ("", here):
        del sys.path[0]
    if here == _HOME and here not in sys.path:
        sys.path.append(here)


def _run(name: str, module: str) -> int:
    """The exit code of the command `main` in `module`, which is imported only now."""
    try:
        if lack := _lacks():
            return _tell(lack, _BROKEN)
        import logging

        import click

        from migemu.process.context import spelled
        from migemu.process.runner import LogNotices

        logging.getLogger("migemu").addHandler(LogNotices())

        if f"_{name.replace('-', '_').upper()}_COMPLETE" in os.environ:
            from migemu.process import shells  # noqa: F401 - it tells click how our scripts ask

        try:
            code = import_module(module).main.main(prog_name=name, standalone_mode=False)
        except click.exceptions.Abort:
            return _tell("interrupted", _INTERRUPTED)
        except click.ClickException as error:
            spelled(error).show()
            return error.exit_code
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else _tell(str(end.code), _BUG)
    except KeyboardInterrupt:
        return _tell("interrupted", _INTERRUPTED)
    except Exception as error:
        if lack := _lack(error):
            return _tell(lack, _BROKEN)
        sys.excepthook(type(error), error, error.__traceback__)
        return _BUG


def _lacks() -> str:
    """What is wrong if the limits of this process (setrlimit) leave too little to begin with."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_below(soft, _DESCRIPTORS_MIN):
        if _is_below(hard, _DESCRIPTORS_MIN):
            return f"only {soft} files may be open here, and {_DESCRIPTORS_MIN} are needed; raise it: ulimit -n 1024"
        resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS_MIN, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if _is_below(soft, _ADDRESSES_MIN):
        return f"only {soft >> 20} MiB of memory may be used here, and {_ADDRESSES_MIN >> 20} are needed; see ulimit -v"
    return ""


def _is_below(limit: int, least: int) -> bool:
    return 0 <= limit < least  # -1 is no limit


def _lack(error: BaseException) -> str:
    """What the machine did not give; empty if it is not that."""
    number = getattr(error, "errno", None)
    text = str(error)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or "annot allocate memory" in text:
        return "no memory left; free some, allow more (ulimit -v), or migrate less memory"
    if isinstance(error, ImportError) and "failed to map" in text:
        return "no memory left to load a library; free some, or allow more (ulimit -v)"
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many files are open; allow more (ulimit -n), or fewer connections (limits.connections_max)"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "no thread can be started; allow more memory (ulimit -v) or processes (ulimit -u)"
    return ""


def _tell(line: str, code: int) -> int:
    print(f"migemu: {line}", file=sys.stderr)
    return code
