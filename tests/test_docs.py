"""What the documentation tells readers to type is what the package accepts: commands are composed, Python is run."""

import argparse
import doctest
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import forked
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

import pde_train
from pde_train import status, sync
from pde_train.cli import _check_words, _in_order
from pde_train.conf_dir import conf_dir
from pde_train.experiment import build
from pde_train.pdes.base import PDE, on
from pde_train.runs.run import run
from pde_train.study import parts, report

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "multirun" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCED = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.M)
INLINE = re.compile(r"`(python -m pde_train[^`]*)`")
PLACEHOLDER = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its language, the text, and the line of prose before it."""

    page: Path
    language: str
    text: str
    before: str


@functools.cache
def blocks() -> list[Block]:
    """Every fenced or indented block of the documentation; an indented one is Python if it begins with a class."""
    found = []
    for file in PAGES:
        text = file.read_text()
        for match in FENCED.finditer(text):
            before = text[: match.start()].rstrip().rpartition("\n")[2]
            found.append(Block(file, match[1], match[2], before))
        for match in INDENTED.finditer(FENCED.sub("", text)):
            code = re.sub("^ {4}", "", match[0].strip("\n"), flags=re.M)
            found.append(Block(file, "python" if code.startswith(("class ", "import ", "from ")) else "sh", code, ""))
    return found


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the documentation, as the name of its page and its words."""
    found = []
    for file in PAGES:
        texts = [b.text for b in blocks() if b.page == file and b.language == "sh"]
        texts += [" ".join(match[1].split()) for match in INLINE.finditer(FENCED.sub("", file.read_text()))]
        for line in "\n".join(texts).replace("\\\n", " ").splitlines():
            words = shlex.split(PLACEHOLDER.sub("somewhere", line.partition(" # ")[0].partition(";")[0]))
            if words:
                found.append((str(file.relative_to(ROOT)), [word for word in words if word != "..."]))
    return found


def told(module: str) -> list[Any]:
    """The words of every command with this module, once each, as cases of a test."""
    named = {tuple(words[words.index(module) + 1 :]) for _, words in commands() if ["-m", module] == words[1:3]}
    return [pytest.param(list(words), id=" ".join(words) or "no words") for words in sorted(named)]


MOST = 6
"""Values of one sweep that are tried: the first ones."""


def each_value(words: list[str]) -> list[list[str]]:
    """The configurations that try the values of each sweep once, beside the first values of the others."""
    parser = OverridesParser.create()
    values: list[list[str]] = []
    for override in parser.parse_overrides(words):
        key = override.get_key_element()
        if isinstance(interval := override.value(), IntervalSweep):
            values.append([f"{key}={end}" for end in (interval.start, interval.end)])
        elif override.is_sweep_override():
            values.append([f"{key}={v}" for v in islice(override.sweep_string_iterator(), MOST)])
        else:
            values.append([str(override.input_line)])
    first = [options[0] for options in values]
    return [first] + [[*first[:i], v, *first[i + 1 :]] for i, options in enumerate(values) for v in options[1:]]


@pytest.mark.parametrize("words", told("pde_train"))
def test_a_command_is_a_configuration_that_can_be_built(words: list[str]) -> None:
    words = _in_order(words)
    overrides = [word for word in words if not word.startswith(("-", "sweep.optional=")) and "=" in word]
    flags = {word for word in words if word.startswith("-")}
    assert flags <= {"--multirun", "--help", "--cfg", "-p"}
    _check_words([*flags, *overrides])
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        for given in each_value(overrides):
            cfg = compose("config", [*given, "tracking=none", "name=test"], return_hydra_config=False)
            if not any(word.endswith("accelerator=gpu") for word in given):  # which is refused where there is none
                build(cfg)


@pytest.mark.parametrize("words", told("pde_train.study"))
def test_a_command_of_the_study_names_parts_and_configurations(words: list[str]) -> None:
    (named,) = [words[i + 1].split(",") for i, word in enumerate(words) if word == "--parts"] or [list(parts.PARTS)]
    assert set(named) <= set(parts.PARTS)
    overrides = [word for word in words if "=" in word]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        for part in named:
            compose("config", [f"experiment=study/{part}", *overrides, "name=test"])


@pytest.mark.parametrize(("module", "main"), [("status", status.main), ("sync", sync.main), ("report", report.main)])
def test_other_commands_have_the_options_that_are_told(
    module: str, main: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command line is parsed; what would follow is not run."""

    class Parsed(Exception):
        pass

    def parse(self: argparse.ArgumentParser, *given: Any) -> None:
        read(self, *given)
        raise Parsed

    read = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    for case in told(f"pde_train.{module}"):
        with pytest.raises(Parsed):
            main(*case.values)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for _, words in commands() if words[0] == "make" for word in words[1:]}
    named |= {name for file in PAGES for name in re.findall(r"`make ([\w-]+)`", file.read_text())}
    assert {"run", "ui", "test", "study"} <= named
    assert named <= targets


def test_every_page_with_commands_is_read() -> None:
    """The expressions that look for commands find some wherever a reader does."""
    read = {page for page, words in commands() if "-m" in words}
    assert read == {str(f.relative_to(ROOT)) for f in PAGES if "python -m pde_train" in f.read_text()}


OWN = [b for b in blocks() if b.language == "python" and not re.match(r"`[\w/]+\.py`", b.before)]


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("block", OWN, ids=lambda b: f"{b.page.name}: {b.text.splitlines()[0]}")
def test_python_of_a_page_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some of them write a run to the working directory
    exec(block.text, {"__name__": "a_page", "PDE": PDE, "on": on})


@pytest.mark.parametrize("module", ["api", "derivatives", "entropy"])
def test_examples_of_docstrings_print_what_they_say(module: str) -> None:
    done = doctest.testmod(import_module(f"pde_train.{module}"))
    assert done.attempted
    assert not done.failed


HEADINGS = ["What it computes", "When to use it", "Cost", "Options", "Measured", "Commands"]
OF_CHOICES = [f for group in ("differentiator", "method") for f in sorted((ROOT / "conf" / group).glob("*.yaml"))]


@pytest.mark.parametrize("choice", OF_CHOICES, ids=lambda f: f.stem)
def test_a_differentiator_and_a_method_have_a_page(choice: Path) -> None:
    """The page of each has the same headings, shows the choice's own file, and names every variant of it."""
    group = choice.parent.name
    text = (ROOT / "docs" / f"{group}s" / f"{choice.stem}.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    assert f"```{{literalinclude}} ../../conf/{group}/{choice.name}\n:language: yaml\n```" in text
    assert f"{group}={choice.stem}" in text
    for variant in choice.with_suffix("").glob("*.yaml"):
        assert f"`{choice.stem}/{variant.stem}`" in text


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub and MyST have it."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda f: str(f.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for file, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        to = (page.parent / file).resolve() if file else page
        assert to.exists(), file
        assert not anchor or anchor in anchors(to), (file, anchor)


def test_the_files_of_the_page_on_extending_run_as_told(tmp_path: Path) -> None:
    """Each block whose line before names a file is that file; then every command of the page."""
    extending = ROOT / "docs" / "extending.md"
    for block in blocks():
        if block.page == extending and (file := re.match(r"`([\w/]+\.\w+)`", block.before)):
            (tmp_path / file[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file[1]).write_text(block.text)
    own = [words for page, words in commands() if page == "docs/extending.md" and "--config-dir" in words]
    assert len(own) == 3
    for setting, _, _, *rest in own:
        name, _, value = setting.partition("=")
        environment = {**os.environ, name: f"{value}{os.pathsep}{os.environ.get(name, '')}"}
        done = forked.run("-m", *rest, "tracking=none", folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / "site" / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()
    api = (tmp_path / "site" / "api.html").read_text()
    for name in pde_train.__all__:
        assert name in api


def test_the_glossary_has_every_metric_and_tag_of_a_run(tmp_path: Path) -> None:
    words = ["model=two_layer", "model.width=4", "sampler.interior=12", "method.steps=4"]
    words += ["differentiator=finite_difference"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = compose("config", ["name=test", "tracking=none", "method.compile=never", *words])
    record = run(build(cfg), tmp_path)
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for name in record.series:
        general = re.sub(r"^flag/.*", "flag/<name>", re.sub(r"/1e-\d\d$", "/<a>", name))
        assert f"`{name}`" in glossary or f"`{general}`" in glossary, name
    for tag in record.tags:
        assert f"`{tag}`" in glossary, tag
