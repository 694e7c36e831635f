"""Who may import whom: the engine runs without what only training needs, and its modules know only those below them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "engine"
TRAIN_ONLY = ("torch", "torchvision", "timm", "gensim")
MODULES = sorted(
    ".".join(("xmr.engine", *path.relative_to(ENGINE).with_suffix("").parts)).removesuffix(".__init__")
    for path in ENGINE.rglob("*.py")
)
LEAVES = {"catalog", "errors", "files", "media", "metrics", "processors", "terminal", "where", "workspace"}
FILES = LEAVES | {"checksums", "runtime", "trt", "corpus"}
ROOMS = FILES | {"catalog", "model", "embed", "index", "codes", "search", "localize", "extract", "info"}
ROOMS |= {"answer", "duplicates", "exchange", "question"}
MAY_IMPORT = {
    **{leaf: {"errors", "media", "processors"} for leaf in LEAVES},
    **dict.fromkeys(FILES - LEAVES, FILES),
    **dict.fromkeys(ROOMS - FILES, ROOMS),
    "codes": ROOMS | {"_topk"},
    "search": ROOMS | {"_topk", "_topk_cuda"},
    "plan": ROOMS,
    "cli": ROOMS | {"plan"},
    "serve": ROOMS,
}
TRAIN_MAY_IMPORT = {
    "errors",
    "files",
    "localize",
    "media",
    "metrics",
    "model",
    "processors",
    "runtime",
    "search",
    "trt",
    "info",
    "terminal",
    "workspace",
}


def run_without(blocked: tuple[str, ...], code: str) -> "subprocess.CompletedProcess[str]":
    """Python in which an import of the blocked packages fails as if they were not installed."""
    script = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def imported_at_the_top(path: Path) -> set[str]:
    """Modules that a file imports outside its functions, in classes, `if` and `try` too."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def rooms(imported: set[str], package: str) -> set[str]:
    """Of `package`, the modules right below it: `media` for xmr.engine.media.text."""
    return {name.removeprefix(f"{package}.").split(".")[0] for name in imported if name.startswith(f"{package}.")}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("xmr.engine.cli")])
def test_a_module_of_the_engine_imports_without_training(module: str) -> None:
    done = run_without((*TRAIN_ONLY, "xmr.train"), f"import {module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "said"), [(["--help"], "train"), (["info"], "start one with `xmr init`")])
def test_the_command_runs_without_torch(arguments: list[str], said: str, tmp_path: Path) -> None:
    code = f"import os\nos.chdir({str(tmp_path)!r})\nsys.argv = {['xmr', *arguments]!r}\nimport xmr.engine.cli as cli\n"
    done = run_without(TRAIN_ONLY, code + "cli.app()")
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_no_array_library() -> None:
    code = "sys.argv = ['xmr', '--help']\nimport atexit, xmr.engine.cli as cli\n"
    done = run_without((), code + "atexit.register(lambda: print({'numpy', 'torch'} & set(sys.modules)))\ncli.app()")
    assert done.stdout.splitlines()[-1] == "set()"


def test_info_tells_of_a_model_without_torch(exported: Path) -> None:
    code = f"sys.argv = ['xmr', 'info', {str(exported)!r}]\nimport xmr.engine.cli as cli\ncli.app()"
    done = run_without(TRAIN_ONLY, code)
    assert done.returncode == 0, done.stderr
    assert "exported model" in done.stdout


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: str(path.relative_to(ENGINE)))
def test_engine_modules_import_only_those_below_them(path: Path) -> None:
    imported = imported_at_the_top(path)
    assert not [name for name in imported if name.startswith(".")], "relative imports"
    assert not {name.split(".")[0] for name in imported} & {
        *TRAIN_ONLY,
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
        "openvino",
    }
    assert not rooms(imported, "xmr.train")
    room = path.relative_to(ENGINE).parts[0].removesuffix(".py")
    if room != "__init__":
        assert rooms(imported, "xmr.engine") <= MAY_IMPORT[room] | {room}


def test_only_the_command_reaches_for_training() -> None:
    reaching = [path for path in sorted(ENGINE.rglob("*.py")) if "from xmr.train" in path.read_text()]
    assert reaching == [ENGINE / "cli" / "__init__.py"]


@pytest.mark.parametrize("path", sorted((ROOT / "train").rglob("*.py")), ids=lambda path: "-".join(path.parts[-2:]))
def test_training_takes_from_the_engine_only_what_both_share(path: Path) -> None:
    assert rooms(imported_at_the_top(path), "xmr.engine") <= TRAIN_MAY_IMPORT


def test_kernels_know_nothing_of_python() -> None:
    with_python = {path.name for path in (ROOT / "csrc").iterdir() if "pybind11" in path.read_text()}
    assert with_python == {"bindings.cpp", "cuda_bindings.cpp"}
