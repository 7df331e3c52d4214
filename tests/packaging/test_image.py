"""The images: their Dockerfiles are replayed, as far as that goes without an engine.

Each stage is a folder. COPY copies, with the ignore file in force; RUN runs what it says, with the
image's absolute paths below that folder and a Python of the stage's own. Only pip's installation is
played: the pinned distributions come out of this environment, if they are those that are pinned,
so that no network is needed. Their hashes are held against the lock, as pip would.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import itertools
import json
import re
import shutil
import subprocess
import tomllib
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit import __version__
from sevkit.testing.host import PRESETS, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
#: What of an image's absolute paths is below a stage's folder.
OWN: Final = re.compile(r"(?<![\w.-])/(?=(?:build|opt)\b)")
PIP: Final = re.compile(r"python -m pip install (?P<options>.*)")
PINNED: Final = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ]+)(?: ; .*?)? \\$", re.MULTILINE
)
#: Says where everything is from that was imported.
ORIGINS: Final = """
for module in list(sys.modules.values()):
    print(getattr(module, "__file__", None) or "")
"""


@dataclass(frozen=True)
class Recipe:
    """An application, and what its image is made of.

    ``parts`` are all the modules that it may import, with its own first; ``manifest`` is its
    workload's, in its base.
    """

    folder: Path
    package: str
    extra: str
    manifest: str
    parts: str

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def requirements(self) -> str:
        return self.read("requirements.txt")

    @property
    def name(self) -> str:
        return f"sevkit-{self.folder.name}"

    def __str__(self) -> str:
        return self.folder.name


OURS: Final = (
    "sevkit.cluster.transport, sevkit.cluster.connection, sevkit.cluster.kubeconfig, "
    "sevkit.observe.metrics, sevkit.observe.server, kubernetes.dynamic, prometheus_client"
)
AGENT: Final = Recipe(
    ROOT / "deploy" / "node-agent",
    "node_agent",
    "agent",
    "daemonset.yaml",
    f"node_agent.app, node_agent.kubernetes_sink, node_agent.firmware_reader, {OURS}",
)
WEBHOOK: Final = Recipe(
    ROOT / "deploy" / "webhook",
    "webhooks",
    "webhook",
    "deployment.yaml",
    f"webhooks.app, uvicorn.protocols.http.h11_impl, {OURS}",
)
RECIPES: Final = (AGENT, WEBHOOK)


@dataclass
class Stage:
    """One stage, as far as it is built."""

    root: Path
    workdir: str = "/"
    environ: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    entrypoint: tuple[str, ...] = ()

    def inside(self, path: str) -> Path:
        """Return where an image's path is; a relative one is below the working directory."""
        return self.root / (Path(self.workdir) / path).relative_to("/")

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the image would, with its own Python first."""
        path = f"{self.root / 'python' / 'bin'}:/usr/bin:/bin"
        own = {name: OWN.sub(f"{self.root}/", value) for name, value in self.environ.items()}
        return subprocess.run(
            command,
            cwd=self.inside("."),
            env={"PATH": path, "LC_ALL": "C.UTF-8"} | own | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield a Dockerfile's instructions, without comments and continued lines."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def is_ignored(path: str, rules: str) -> bool:
    """Return whether an ignore file keeps a path out: the last rule that fits it decides."""
    found = False
    for line in rules.splitlines():
        if line and not line.startswith("#"):
            rule = line.removeprefix("!")
            parents = [path, *map(str, Path(path).parents)]
            names = [rule, rule.removeprefix("**/")]
            if any(fnmatch.fnmatchcase(one, name) for one in parents for name in names) or (
                rule.startswith("**/") and fnmatch.fnmatchcase(Path(path).name, names[1])
            ):
                found = not line.startswith("!")
    return found


def copy(source: Path, target: Path, rules: str | None = None) -> None:
    """Copy a file, or the content of a folder; from the tree, ``rules`` keep some out."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    assert files, f"COPY of nothing: {source}"
    for file in files:
        if rules is None or not is_ignored(file.relative_to(ROOT).as_posix(), rules):
            to = target / (file.relative_to(source) if source.is_dir() else file.name)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to)


def install(requirements: Path, target: Path) -> None:
    """Do as pip would: what is pinned, out of this environment."""
    for found in PINNED.finditer(requirements.read_text()):
        distribution = importlib.metadata.distribution(found["name"])
        assert distribution.version == found["version"], found["name"]
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                to = target / file
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), to)


class Replay:
    """Does what a Dockerfile says, instruction by instruction; ``stage`` is the last one."""

    def __init__(self, folder: Path, rules: str) -> None:
        self._folder = folder
        self._rules = rules
        self._stages: dict[str, Stage] = {}
        self.stage = Stage(folder)

    def do(self, word: str, rest: str) -> None:
        known = {
            "ARG": self._arg,
            "FROM": self._from,
            "WORKDIR": self._workdir,
            "COPY": self._copy,
            "RUN": self._run,
            "ENV": self._env,
            "USER": self._user,
            "ENTRYPOINT": self._entrypoint,
        }
        known[word](rest)

    def _arg(self, rest: str) -> None:
        assert not self._stages, f"an argument of one stage: {rest}"

    def _from(self, rest: str) -> None:
        count = len(self._stages)
        self.stage = Stage(self._folder / f"stage{count}")
        self._stages[rest.partition(" AS ")[2] or str(count)] = self.stage
        self.stage.root.mkdir()
        # The first one's pip is played, and to make one takes seconds.
        venv.create(self.stage.root / "python", with_pip=count > 0)

    def _workdir(self, rest: str) -> None:
        self.stage.workdir = rest
        self.stage.inside(".").mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *options, source, target = rest.split()
        to = self.stage.inside(target)
        if options:
            (option,) = options
            copy(self._stages[option.removeprefix("--from=")].inside(source), to)
        else:
            copy(ROOT / source, to, self._rules)

    def _run(self, rest: str) -> None:
        played = PIP.fullmatch(rest)
        if played:
            options = played["options"].split()
            assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(options)
            given = dict(itertools.pairwise(options))
            inside = self.stage.inside
            install(inside(given["--requirement"]), inside(given["--target"]))
            return
        done = self.stage.run("/bin/sh", "-c", OWN.sub(f"{self.stage.root}/", rest))
        assert done.returncode == 0, done.stderr

    def _env(self, rest: str) -> None:
        self.stage.environ |= dict(part.split("=", 1) for part in rest.split())

    def _user(self, rest: str) -> None:
        self.stage.user = rest

    def _entrypoint(self, rest: str) -> None:
        self.stage.entrypoint = tuple(json.loads(rest))


def replay(text: str, folder: Path, rules: str = "") -> Stage:
    """Return a Dockerfile's last stage."""
    replayed = Replay(folder, rules)
    for word, rest in instructions(text):
        replayed.do(word, rest)
    return replayed.stage


def build(recipe: Recipe, folder: Path) -> Stage:
    """Return an application's image."""
    return replay(recipe.read("Dockerfile"), folder, recipe.read("Dockerfile.dockerignore"))


@dataclass(frozen=True)
class Image:
    """An application's image, as far as it is built."""

    recipe: Recipe
    stage: Stage

    @property
    def site(self) -> Path:
        return self.stage.inside("/opt/sevkit")

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.stage.run(*self.stage.entrypoint, *words)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Image]:
    """Returns the image of an application, which is made once."""
    made: dict[Recipe, Image] = {}

    def run(recipe: Recipe) -> Image:
        if recipe not in made:
            made[recipe] = Image(recipe, build(recipe, tmp_path_factory.mktemp("image")))
        return made[recipe]

    return run


@pytest.fixture(params=RECIPES, ids=str)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found: Recipe = request.param
    return found


@pytest.fixture
def image(make: Callable[[Recipe], Image], recipe: Recipe) -> Image:
    return make(recipe)


def locked() -> dict[str, dict[str, object]]:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    return {row["name"]: row for row in lock["package"]}


def test_the_image_has_what_the_extra_needs_and_nothing_else(recipe: Recipe) -> None:
    rows = locked()
    own = rows["sevkit"]
    todo = [*own["dependencies"], *own["optional-dependencies"][recipe.extra]]  # type: ignore[index,misc]  # TOML
    needed: set[str] = set()
    while todo:
        name = todo.pop()["name"]
        if name not in needed:
            needed.add(name)
            todo += rows[name].get("dependencies", [])  # type: ignore[arg-type]  # TOML
    pinned = {found["name"]: found["version"] for found in PINNED.finditer(recipe.requirements)}
    assert pinned == {name: rows[name]["version"] for name in needed}


def test_versions_and_hashes_are_those_of_the_other_requirement_file(recipe: Recipe) -> None:
    whole = (ROOT / "hack" / "requirements.txt").read_text()
    blocks = re.split(r"^(?=[a-z])", recipe.requirements, flags=re.MULTILINE)[1:]
    assert len(blocks) > 20
    for block in blocks:
        assert "--hash=sha256:" in block
        assert f"\n{block}" in whole


def test_the_base_has_a_tag_that_says_which_python_and_which_debian(recipe: Recipe) -> None:
    found = dict(instructions(recipe.read("Dockerfile")))["ARG"]
    assert re.fullmatch(r"PYTHON=python:3\.\d+-slim-[a-z]+", found)


def test_both_images_are_made_alike() -> None:
    for name in ("Dockerfile", "Dockerfile.dockerignore"):
        texts = set()
        for recipe in RECIPES:
            lines = [line for line in recipe.read(name).splitlines() if not line.startswith("#")]
            own = f"deploy/{recipe.folder.name}/"
            text = "\n".join(lines).replace(own, "deploy/…/").replace(recipe.package, "…")
            texts.add(text)
        assert len(texts) == 1


def test_the_image_runs_as_a_user_without_a_name_that_the_manifest_names_too(image: Image) -> None:
    assert image.stage.user == "65532:65532"
    assert "runAsUser: 65532" in image.recipe.read(f"base/{image.recipe.manifest}")


def test_the_image_has_the_version_that_the_manifests_ask_for(recipe: Recipe) -> None:
    asked = {
        tag
        for path in recipe.folder.rglob("*")
        if path.is_file()
        for tag in re.findall(rf"{recipe.name}:([0-9][\w.]*)", path.read_text())
    }
    assert asked == {__version__}


def test_the_entry_point_helps(image: Image) -> None:
    done = image.start("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {image.recipe.package}")
    assert image.start("--version").stdout == f"sevkit {__version__}\n"


def test_the_firmware_reader_helps(make: Callable[[Recipe], Image]) -> None:
    done = make(AGENT).stage.run("python", "-m", "node_agent.firmware_reader", "--help")
    assert done.returncode == 0, done.stderr


def test_the_agent_says_in_the_image_what_a_host_can_do(
    make: Callable[[Recipe], Image], tmp_path: Path
) -> None:
    write_host(PRESETS["genoa"], tmp_path / "host")
    words = ["--sink", "stdout", "--once", "--dry-run", "--host-root", str(tmp_path / "host")]
    done = make(AGENT).start(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"]["sevkit.io/sev-snp"] == "true"


def test_the_webhook_says_in_the_image_that_it_is_in_no_cluster(
    make: Callable[[Recipe], Image],
) -> None:
    done = make(WEBHOOK).start()
    assert done.returncode == 2
    (line,) = (json.loads(line) for line in done.stderr.splitlines() if '"critical"' in line)
    assert "where the API server is" in str(line)


def test_everything_that_it_may_import_is_there_and_is_the_images_own(image: Image) -> None:
    done = image.stage.run("python", "-c", f"import sys, {image.recipe.parts}{ORIGINS}")
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines() if line]
    foreign = [one for one in files if one.is_relative_to(ROOT) or "site-packages" in one.parts]
    assert not [one for one in foreign if not one.is_relative_to(image.site)]
    assert sum(one.is_relative_to(image.site) for one in files) > 50


def test_pip_is_gone_and_no_test_simulation_or_other_application_came(image: Image) -> None:
    assert "No module named pip" in image.stage.run("python", "-m", "pip").stderr
    names = {path.name for path in image.site.iterdir()}
    assert {"sevkit", image.recipe.package, "kubernetes"} <= names
    others = {one.package for one in RECIPES} - {image.recipe.package}
    assert not names & ({"bin", "tests", "hack", "pip", "pytest", "mypy", "hypothesis"} | others)
    assert not (image.site / "sevkit" / "testing").exists()


def test_everybody_can_read_it_and_nobody_but_its_owner_write(image: Image) -> None:
    for path in image.site.rglob("*"):
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path
        assert not path.stat().st_mode & 0o022, path


def test_its_bytecode_is_there_and_names_the_paths_that_it_will_have(image: Image) -> None:
    for name in ("sevkit", image.recipe.package):
        folder = image.site / name
        sources = {path.stem for path in folder.glob("*.py")}
        cached = {path.name.partition(".")[0] for path in (folder / "__pycache__").iterdir()}
        assert sources == cached
    code = f"import {image.recipe.package}.app as a; print(a.main.__code__.co_filename)"
    done = image.stage.run("python", "-c", code)
    # The replay maps the path of the second stage onto the first, which is where this was made.
    assert done.stdout.strip().endswith(f"/opt/sevkit/{image.recipe.package}/app.py")


def test_a_stage_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such thing"):
        replay('FROM x\nRUN echo "no such thing" >&2 && false\n', tmp_path)


@pytest.mark.parametrize(
    ("path", "kept_out"),
    [
        ("sevkit/errors.py", False),
        ("sevkit/kds/data/milan.pem", False),
        ("{package}/app.py", False),
        ("{folder}/requirements.txt", False),
        ("{folder}/base/namespace.yaml", True),
        ("sevkit/testing/host.py", True),
        ("sevkit/__pycache__/errors.cpython-311.pyc", True),
        ("README.md", True),
        ("tests/conftest.py", True),
        ("hack/peers.py", True),
        (".git/config", True),
    ],
)
def test_only_what_is_needed_is_sent_to_the_engine(
    recipe: Recipe, path: str, kept_out: bool
) -> None:
    folder = recipe.folder.relative_to(ROOT)
    asked = path.format(package=recipe.package, folder=folder)
    assert is_ignored(asked, recipe.read("Dockerfile.dockerignore")) is kept_out
