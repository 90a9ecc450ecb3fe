"""The scripts by which bash, zsh and fish complete the commands, and what they ask for at each TAB.

bash splits a word at `=` and `:` (COMP_WORDBREAKS), so that `--set link.rate=` is three of its words, and replaces only
what stands behind the last of them; zsh and fish do not. So bash hands over its line, and gets what fits behind the
break. Behind `=` and `:` no space is put, since a value follows.
"""

from __future__ import annotations

import os
from typing import Any, Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

SHELLS: Final = ("bash", "zsh", "fish")
#: What stands at the end of a completion behind which something has to follow.
_UNFINISHED: Final = ("=", ":", ",")
#: Stands for the cursor while its word is looked for; no command line holds it.
_CURSOR: Final = "\x1f"

_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' type value completion
    COMPREPLY=()
    for completion in $(env COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_BREAKS="$COMP_WORDBREAKS" \\
            %(complete_var)s=bash_complete "$1" 2>/dev/null); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part) COMPREPLY+=("$value"); compopt -o nospace ;;
            *) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH: Final = """\
%(complete_func)s() {
    local -a plain described parts response
    local type key descr
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for type key descr in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) compset -P '*='; _path_files -f ;;
            part) parts+=("$key") ;;
            *) if [[ "$descr" == "_" ]]; then plain+=("$key"); else described+=("$key:$descr"); fi ;;
        esac
    done
    [[ -n "$described" ]] && _describe -V unsorted described -U
    [[ -n "$plain" ]] && compadd -U -V unsorted -a plain
    [[ -n "$parts" ]] && compadd -U -S '' -V unsorted -a parts
}
compdef %(complete_func)s %(prog_name)s
"""


def _type(item: CompletionItem[Any]) -> str:
    """`part` for a completion behind which something has to follow."""
    return "part" if item.type == "plain" and item.value.endswith(_UNFINISHED) else item.type


class _Bash(BashComplete):
    """Completion in bash 4.4 or newer."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words in front of the cursor's, and that one up to the cursor."""
        line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode(errors="ignore")
        words = split_arg_string(line + _CURSOR)
        typed = words[-1].removesuffix(_CURSOR)
        raw = line[len(line) - len(typed) :]
        is_quoted = raw != typed or line[: len(line) - len(typed)].endswith(("'", '"'))
        value = typed.partition("=")[2] if typed.startswith("-") and "=" in typed else typed
        breaks = [] if is_quoted else [each for each in ("=", ":") if each in os.environ["COMP_BREAKS"]]
        self._replaced = max((value.rfind(each) + 1 for each in breaks), default=0)
        return words[1:-1], typed

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Its type, and what stands in the place of the part that bash replaces."""
        return f"{_type(item)},{item.value[self._replaced :]}"


class _Zsh(ZshComplete):
    """Completion in zsh."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """As click, and `part` as a type."""
        kind = _type(item)
        if kind == "part":
            return f"{kind}\n{item.value}\n_"
        text = " ".join((item.help or "").split())
        return super().format_completion(CompletionItem(item.value, type=kind, help=text or None))


for _kind in (_Bash, _Zsh):
    add_completion_class(_kind)
_KINDS: Final = {"bash": _Bash, "zsh": _Zsh, "fish": FishComplete}


def variable(program: str) -> str:
    """The environment variable by which a script asks `program`: `_MIGEMU_SOURCE_COMPLETE`."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def script(shell: str, programs: tuple[str, ...]) -> str:
    """The script of one of `SHELLS` for these programs."""
    kind = _KINDS[shell]
    made = (kind.source_template % kind(None, {}, each, variable(each)).source_vars() for each in programs)  # type: ignore[arg-type]
    return "".join(made)
