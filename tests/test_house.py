"""The house itself: metadata that agree, a wheel that is complete, imports on use, commands that exist."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mge_gpu
from mge_gpu import cli, doctor

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mge_gpu"
SOURCES = sorted(PACKAGE.rglob("*.py"))

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

# module that is imported -> distribution, where the names differ
DISTRIBUTIONS = {"sklearn": "scikit-learn", "cupy": "cupy-cuda13x"}


def normal(requirement: str) -> str:
    """Distribution name of a requirement, as packaging compares them."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]).lower()


def brought_by(extra: str) -> list[str]:
    """Requirements of an extra; of `all`, those of the extras that it holds."""
    found = []
    for requirement in EXTRAS[extra]:
        inner = re.fullmatch(r"mge_gpu\[(.*)\]", requirement)
        found += sum(map(brought_by, inner.group(1).split(",")), []) if inner else [requirement]
    return found


def environment() -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def pip_requirements() -> list[str]:
    (pip,) = [entry["pip"] for entry in environment()["dependencies"] if isinstance(entry, dict)]
    return pip


def test_environment_has_the_requirements_of_the_package():
    listed = pip_requirements()
    wanted = [*PROJECT["dependencies"]]
    for extra in ("rank", "vision", "pyg", "graphs", "plots", "test"):
        wanted += EXTRAS[extra]
    assert listed[-1] == "--editable ."
    assert sorted(listed[:-1]) == sorted(set(wanted))


def test_environment_has_the_python_of_the_package():
    python = [entry for entry in environment()["dependencies"] if str(entry).startswith("python")]
    assert python == [f"python{PROJECT['requires-python']}"]
    assert environment()["name"] == PROJECT["name"]


def test_installed_metadata_are_those_of_this_checkout():
    metadata = pytest.importorskip("importlib.metadata")
    try:
        installed = metadata.metadata("mge_gpu")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    assert installed["Version"] == mge_gpu.__version__
    assert set(installed.get_all("Provides-Extra")) == {normal(extra) for extra in EXTRAS}
    plain = [line for line in installed.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(map(normal, plain)) == sorted(map(normal, PROJECT["dependencies"]))


def test_all_holds_the_other_extras():
    (everything,) = EXTRAS["all"]
    named = set(re.fullmatch(r"mge_gpu\[(.*)\]", everything).group(1).split(","))
    assert named == set(EXTRAS) - {"all", "test", "torch-sparse"}


def test_the_linters_of_the_test_extra_are_pinned():
    pins = {normal(line): line for line in EXTRAS["test"]}
    assert pins["ruff"].startswith("ruff==") and pins["mypy"].startswith("mypy==")


def test_doctor_knows_what_the_metadata_say():
    assert sorted(doctor.REQUIRED) == sorted(map(normal, PROJECT["dependencies"]))
    for _module, (distribution, extra, _purpose) in doctor.OPTIONAL.items():
        assert distribution in map(normal, EXTRAS[extra])


def required_modules() -> list[tuple[str, int, str, str]]:
    """File, line, module and extra of each ``require(module, extra, ...)`` whose arguments are literal."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("require")
                and len(node.args) >= 2
            ):
                module, extra = node.args[:2]
                if isinstance(module, ast.Constant) and isinstance(extra, ast.Constant):
                    found.append((str(path.relative_to(ROOT)), node.lineno, module.value, extra.value))
    return found


def test_every_hint_names_an_extra_that_brings_the_module():
    hints = [hint for hint in required_modules() if hint[2] != "math"]
    assert hints
    for path, line, module, extra in hints:
        top = module.split(".")[0]
        assert extra in EXTRAS, f"{path}:{line} names the extra {extra!r}, which does not exist"
        names = [normal(requirement) for requirement in [*brought_by(extra), *PROJECT["dependencies"]]]
        assert normal(DISTRIBUTIONS.get(top, top)) in names, f"{path}:{line}: extra {extra!r} lacks {module}"


def test_importing_the_package_loads_nothing_optional():
    optional = [*doctor.OPTIONAL, "cupy", "typer", "rich"]
    code = f"import sys, mge_gpu; print(sorted(set(sys.modules) & set({optional!r})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_help_does_not_load_torch():
    code = "import sys, mge_gpu.cli; print('torch' in sys.modules or 'numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The package as a wheel would lay it out, built from a copy with a kernel and a data file more."""
    pytest.importorskip("setuptools")
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "mge_gpu", ignore=skip)
    shutil.copytree(ROOT / "kernels", copy / "kernels", ignore=skip)
    (copy / "kernels" / "probe.cu").write_text("// a kernel\n")
    (copy / "mge_gpu" / "ranking" / "data").mkdir(parents=True, exist_ok=True)
    (copy / "mge_gpu" / "ranking" / "__init__.py").touch()
    (copy / "mge_gpu" / "ranking" / "data" / "probe.json").write_text("{}\n")
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", "out"]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return copy / "out" / "lib" / "mge_gpu"


def test_the_wheel_has_every_module(built):
    missing = [path for path in SOURCES if not (built / path.relative_to(PACKAGE)).is_file()]
    assert not missing, "a folder without __init__.py is not packed"


def test_the_wheel_has_kernels_and_data_and_no_more(built):
    assert (built / "kernels" / "probe.cu").is_file() and (built / "kernels" / "__init__.py").is_file()
    assert (built / "ranking" / "data" / "probe.json").is_file()
    assert (built / "py.typed").is_file()
    assert not (built / "kernels" / "README.md").exists()
    assert not (built.parent / "tests").exists()


def test_console_script_names_a_function():
    module, _, name = PROJECT["scripts"]["mge-gpu"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_no_file_is_long():
    long = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert {path: lines for path, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize("name", ["Makefile", "setup.py", "pyproject.toml", "environment.yml", ".ci/run"])
def test_no_registry_or_machine_is_named(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--find-links", text)


def test_device_fixture(device):
    assert device in ("cpu", "cuda")


def test_a_device_that_is_missing_is_a_failure():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    test = f"{Path(__file__).relative_to(ROOT)}::test_device_fixture"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--device",
        "cuda",
    ]
    run = subprocess.run([*command, test], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "1 passed, 1 error" in run.stdout
    assert "--device cuda was asked for" in run.stdout


def test_seed_fixture_draws_the_same_numbers(seed):
    torch = pytest.importorskip("torch")
    assert seed == 1234
    first = torch.rand(1).item()
    torch.manual_seed(seed)
    assert torch.rand(1).item() == first


def readme_blocks(language: str) -> list[str]:
    """Code blocks of the README in one language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_of_the_readme_runs(capsys):
    first, *others = readme_blocks("python")
    exec(compile(first, "README.md", "exec"), {})
    assert "191,894" in capsys.readouterr().out
    for code in others:  # these train and rank for minutes: their names and keywords are looked at
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            assert isinstance(call.func, ast.Attribute), ast.unparse(call)
            known = inspect.signature(getattr(mge_gpu, call.func.attr)).parameters
            named = {word.arg for word in call.keywords} - set(known)
            assert not named or "options" in known, ast.unparse(call)


def test_the_calls_within_the_text_of_the_readme_run():
    """Of small stand-ins by the names that the text uses."""
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    calls = [" ".join(code.split()) for code in re.findall(r"`(mge\.[^`]*\))`", text)]
    assert len(calls) >= 3
    model = mge_gpu.models.resnet20()
    masks = mge_gpu.prune(model, "erk", 0.99)
    graph = mge_gpu.encode(model, (3, 32, 32), masks)
    names = {"mge": mge_gpu, "model": model, "graph": graph} | dict.fromkeys(
        ("masks", "masks1", "masks2"), masks
    )
    for call in calls:
        assert len(eval(call, names)) > 0, call


def test_the_readme_names_commands_and_options_that_exist():
    testing = pytest.importorskip("typer.testing")
    lines = [
        line for block in readme_blocks("sh") for line in block.splitlines() if line.startswith("mge-gpu ")
    ]
    assert len(lines) >= 5
    for line in lines:
        command, *rest = line.split()[1:]
        help_text = testing.CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "300"})
        assert help_text.exit_code == 0, line
        for option in (word for word in rest if word.startswith("--")):
            assert re.search(rf"{option}\b", help_text.output), f"{command} has no {option}"


def test_the_readme_names_the_extras_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| extra \|.*?\n\n", text, flags=re.DOTALL).group(0)
    assert set(re.findall(r"^\| `([\w-]+)`", table, flags=re.MULTILINE)) == set(EXTRAS)


def test_the_picture_of_the_readme_is_small():
    assert (ROOT / "docs" / "mge.png").stat().st_size < 150_000
