"""The README's commands are real: they parse, and its make targets, files and options exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from search import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = sorted({line.strip().split("#")[0].strip() for line in re.findall(r"^    ((?:python -m search|karyotune) .*)$", TEXT, re.M)})


def words_of(command: str) -> list[str]:
    words = shlex.split(command)
    return words[1:] if words[0] == "karyotune" else words[3:]


def parsed(command: str) -> None:
    words = words_of(command)
    name, command, rest = cli.COMMANDS.resolve_command(click.Context(cli.COMMANDS), words)
    command.make_context(name, rest)


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_parses(command):
    parsed(command)


def test_a_command_that_does_not_exist_is_noticed():
    with pytest.raises(click.NoSuchOption):
        parsed("python -m search supcam --no-such-option")


@pytest.mark.parametrize("command", [c for c in COMMANDS if words_of(c)[0] in ("evaluate", "predict", "data")])
def test_a_command_on_what_is_not_there_is_refused_as_a_request_and_not_as_a_usage(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("FOLDER", "nowhere") for word in words_of(command)]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "usage" not in said.err and "--help" not in said.err


@pytest.mark.parametrize("option", sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--out", "--help"}))
def test_an_option_of_the_readme_exists(option, capsys):
    from analysis.__main__ import main

    with pytest.raises(SystemExit):
        main(["--help"])
    if option in capsys.readouterr().out:
        return
    commands = [*cli.COMMANDS.commands.values()]
    verbs = [cli.study_command("supcam"), *commands, *(deeper for verb in commands for deeper in getattr(verb, "commands", {}).values())]
    assert any(option in verb.get_help(click.Context(verb)) for verb in verbs)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", TEXT)) - {"it"}))
def test_a_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", TEXT))))
def test_a_file_that_the_readme_links_exists(path):
    assert (ROOT / path).exists()
