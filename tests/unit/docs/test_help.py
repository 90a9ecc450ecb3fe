"""`migemu help`: topics, pages, words in headings, commands, and the nearest topic to a mistake."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from migemu.docs.topics import FOLDER, Topic, find, topics
from migemu.errors import InputError


def told(*words: str) -> str:
    done = CliRunner().invoke(main, ["help", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_page_is_listed_by_its_topic_and_title() -> None:
    listed = told()
    for page in topics():
        assert page.name in listed
        assert page.title.split()[0] in listed


def test_every_file_is_a_page_and_has_a_title() -> None:
    files = {
        path.relative_to(FOLDER).with_suffix("").as_posix()
        for path in FOLDER.rglob("*.md")
        if "examples" not in path.parts
    }
    assert files == {page.name for page in topics()}
    for page in topics():
        assert page.text.startswith("# "), page.name


def test_a_page_is_found_by_its_topic_and_by_the_last_part_of_it() -> None:
    for page in topics():
        assert find([page.name]) == [page]
    last = [page.name.rpartition("/")[2] for page in topics()]
    assert len({*last}) == len(last), "two pages have one name"


def test_into_a_pipe_goes_markdown_without_comments_and_with_links_for_the_terminal() -> None:
    page = Topic("howto/x", "# X\n<!-- not run: y -->\nSee [keys](../reference/results.md#a) or ![p](p.png).\n")
    assert page.readable() == "# X\nSee keys (`migemu help results`) or ![p](p.png).\n"
    assert Topic("a", "::: migemu.simulate\n    options: {}\nb\n").readable() == (
        "`migemu.simulate`: read `python -m pydoc migemu.simulate`\nb\n"
    )
    assert told("index").startswith("# migemu\n")


def test_a_name_of_a_command_shows_its_help() -> None:
    assert told("sim").splitlines()[0].startswith("Usage: ")


def test_words_are_looked_for_in_headings() -> None:
    page = Topic("howto/tls", "# Encrypt\ntext\n## With a KEY of both\n")
    assert page.holds(["key", "encrypt"])
    assert not page.holds(["text"])


def test_a_topic_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown topic 'indx'; did you mean 'index'"):
        find(["indx"])
    with pytest.raises(InputError, match="`migemu help` lists all topics"):
        find(["zzzzzzzzzzzz"])
    done = CliRunner().invoke(main, ["help", "indx"])
    assert done.exit_code == 2
