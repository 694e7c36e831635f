"""Every command through the console script, on a tiny world: what it does, and what it says to wrong input."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY, XMR, must_run, run_xmr

from xmr.engine import runtime
from xmr.engine.cli.options import tell_how
from xmr.engine.runtime import Choice

COMMANDS = ("init", "fetch", "speak", "train", "eval", "compare", "export", "plan")
HELP = (*COMMANDS, "index", "embed", "query", "similar", "localize", "info")


def refused(*arguments: object, cwd: Path, code: int, says: str) -> None:
    """The command ends with this exit code and one sentence on stderr that matches."""
    done = run_xmr(*arguments, cwd=cwd)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert re.search(says, " ".join(done.stderr.split())), done.stderr


def lines(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("command", HELP)
def test_help_has_an_example(command: str, tmp_path: Path) -> None:
    assert f"Example: xmr {command}" in must_run(command, "--help", cwd=tmp_path)


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    done = run_xmr(cwd=tmp_path)
    assert all(command in done.stdout + done.stderr for command in HELP)


def test_what_a_model_runs_on_is_told_and_once_why_not_on_the_gpu_that_is_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "no plan for TensorRT in m/plans; build it with `xmr plan`"
    choices = {
        "image": Choice("tensorrt", "float16", "cuda:0", Path("m"), "image.onnx"),
        "sound": Choice("openvino", "int8", "cpu", Path("m"), "sound.onnx", passed_over=reason),
        "text": Choice("onnxruntime", "float32", "cpu", Path("m"), "text.onnx", passed_over=reason),
    }
    monkeypatch.setattr(runtime, "remarks", lambda: ["two wheels overwrite each other"])
    tell_how(SimpleNamespace(name="m", choice=choices.get), list(choices))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "note: two wheels overwrite each other",
        f"note: sound, text not on the GPU: {reason}",
        "model m on cuda:0: image by tensorrt float16",
        "model m on cpu: sound by openvino int8; text by onnxruntime float32",
    ]


def test_init_writes_settings_and_leaves_old_ones_alone(tmp_path: Path) -> None:
    must_run("init", "new", "--recipe", "see-hear-read", cwd=tmp_path)
    assert 'recipe = "see-hear-read"' in (tmp_path / "new" / "xmr.toml").read_text()
    refused("init", "new", cwd=tmp_path, code=1, says="exists already")
    refused("init", "other", "--recipe", "slow", cwd=tmp_path, code=1, says="'slow' is unknown.*quick")
    assert not (tmp_path / "other").exists()


def test_a_recipe_is_shown_with_its_encoders_and_stages(tmp_path: Path) -> None:
    shown = must_run("train", "--list", "--recipe", "dsve", cwd=tmp_path)
    (facts,) = lines(must_run("train", "--list", "--recipe", "dsve", "--set", "size=small", "--json", cwd=tmp_path))
    assert re.search(r"^image +timm-map resnet152", shown, re.MULTILINE)
    assert re.search(r"^ +3 +51 +160 +adam .* image from layer3 +hardest_negative$", shown, re.MULTILINE)
    assert facts["encoders"] == {"image": "timm-map tf_efficientnet_lite0", "text": "sru"}
    assert len(must_run("train", "--list", cwd=tmp_path).splitlines()) > 10


def test_train_writes_checkpoint_metrics_and_curves(finished_world: Path) -> None:
    folder = finished_world / ".xmr" / "checkpoint"
    assert {"last.safetensors", "best.safetensors", "config.toml", "metrics.jsonl"} <= {
        p.name for p in folder.iterdir()
    }
    records = lines((folder / "metrics.jsonl").read_text())
    assert [record["epoch"] for record in records if "val" in record] == [1, 2]
    assert list((folder / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("--set", "losses.ranking.margins=1"),
            1,
            "losses.ranking.margins is unknown; did you mean losses.ranking.margin",
        ),
        (("--set", "epochs=many"), 1, '"many" found, a whole number expected'),
        (("--set", "encoders.image.name=net"), 1, "encoders of image are timm"),
        (("--overwrite", "--data", "nowhere"), 1, "nowhere.*no such file"),
        (("--recipe", "slow"), 1, "'slow' is unknown"),
        ((), 1, "holds a checkpoint.*--resume"),
        (("--resume", "--set", "epochs=3"), 2, "the checkpoint's own settings"),
        (("--device", "tpu"), 2, "tpu is unknown"),
    ],
)
def test_train_refuses(finished_world: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    refused("train", *arguments, cwd=finished_world, code=code, says=says)


def test_train_needs_a_workspace(tmp_path: Path) -> None:
    refused("train", cwd=tmp_path, code=1, says="no xmr.toml here; start with `xmr init`")


def test_train_goes_on_to_the_end_it_was_given(world: Path) -> None:
    settings = [part for setting in (*TINY, "epochs=1") for part in ("--set", setting)]
    must_run("train", "--overwrite", *settings, cwd=world)
    must_run("train", "--resume", cwd=world)
    assert lines(must_run("info", ".xmr/checkpoint", "--json", cwd=world))[0]["epoch"] == 1


def test_eval_shows_every_direction_beside_random(finished_world: Path) -> None:
    records = lines(must_run("eval", "--json", cwd=finished_world))
    directions = {(record["query"], record["gallery"]) for record in records}
    assert directions == {(a, b) for a in ("image", "sound", "text") for b in ("image", "sound", "text") if a != b}
    assert all(set(record["random"]) == {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "mAP"} for record in records)
    table = must_run("eval", cwd=finished_world)
    assert len(table.splitlines()) == 7
    assert "random mAP" in table


def test_eval_asks_in_folds_and_in_random_galleries(finished_world: Path) -> None:
    arguments = ("eval", "--gallery", 4, "--repeats", 3, "--seed", 1, "--json")
    records = lines(must_run(*arguments, cwd=finished_world))
    assert {(record["n_gallery"], record["n_queries"], record["galleries"]) for record in records} == {(4, 12, 3)}
    done = run_xmr("eval", "--fold-size", 3, cwd=finished_world)
    assert done.returncode == 0
    assert "image→text, text→image: mean over 2 folds of 3 ids; 2 ids that fill none are left out" in done.stderr


def test_eval_shows_the_figures_of_published_systems(finished_world: Path) -> None:
    _, table = must_run("eval", "--faithful", "--average", "text", cwd=finished_world).split("\n\n")
    systems = [line.split()[2] for line in table.splitlines()[1:]]
    assert systems[:4] == ["xmr", "vsepp", "dsve", "cmpl"]
    assert systems.count("jc") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--split", "dev"), 2, "dev is unknown"),
        (("--split", "test"), 1, "no test rows.*splits are train, val"),
        (("--checkpoint", "nowhere"), 1, "no checkpoint there; train one"),
        (("--data", "nowhere"), 1, "no such file"),
        (("--fold-size", "99"), 1, "a fold of 99 ids was asked for, image and sound have 8; give at most that"),
        (("--gallery", "99"), 1, "galleries of 99 pairs were asked for"),
        (("--fold-size", "2", "--gallery", "2"), 2, "choose one of them"),
        (("--keep-tail",), 2, "give --fold-size too"),
        (("--repeats", "3"), 2, "give --gallery too"),
        (("--average", "image,smell"), 2, "the model has no 'smell'; it has image, sound, text"),
        (("--gallery", "0"), 2, "--gallery"),
    ],
)
def test_eval_refuses(finished_world: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    refused("eval", *arguments, cwd=finished_world, code=code, says=says)


def test_export_prints_the_parity_of_every_modality(world: Path) -> None:
    records = lines(must_run("export", "--model", "exported", "--json", cwd=world))
    assert {record["modality"] for record in records} == {"image", "sound", "text"}
    assert all(float(str(record["min_cosine"])) >= 0.9999 for record in records)
    assert (world / "exported" / "onnx" / "head.onnx").is_file()


def test_export_refuses(world: Path) -> None:
    refused("export", "--checkpoint", "corpus", cwd=world, code=1, says="no checkpoint there")
    refused("export", "--model", "corpus", cwd=world, code=1, says="no part of an exported model")
    (world / ".xmr/checkpoint/best.safetensors").write_bytes(b"no checkpoint")
    refused("export", cwd=world, code=1, says="no checkpoint of xmr")
    assert (world / "corpus" / "notes.txt").is_file()


def test_index_embeds_only_what_is_new(world: Path) -> None:
    must_run("index", "corpus", cwd=world)
    again = lines(must_run("index", "corpus", "--json", cwd=world))[0]
    assert (again["n_embedded"], again["n_ignored"]) == (0, 1)
    (world / "corpus" / "notes.txt").open("a").write("a red bell\n")
    changed = lines(must_run("index", "corpus", "--json", cwd=world))[0]
    assert (changed["n_embedded"], changed["n_items"]) == (1, 9)


def test_index_skips_a_bad_file_and_says_so(world: Path) -> None:
    (world / "corpus" / "bad.jpg").write_bytes(b"no picture")
    done = run_xmr("index", "corpus", cwd=world)
    assert done.returncode == 3
    assert "skipped:" in done.stderr
    assert "bad.jpg" in done.stderr
    assert "1 skipped" in done.stdout
    assert run_xmr("index", "corpus", "--strict", cwd=world).returncode == 1


def test_index_refuses(world: Path) -> None:
    (world / "empty").mkdir()
    before = sorted((world / ".xmr" / "index" / "segments").iterdir())
    refused("index", "nowhere", cwd=world, code=1, says="nowhere: no such file or folder")
    refused("index", "empty", "--index", "fresh", cwd=world, code=1, says="nothing to embed, found no file at all")
    refused("index", "corpus", "--model", "empty", cwd=world, code=1, says="no config.json in it")
    refused("index", "corpus", "--device", "cuda", cwd=world, code=1, says="no CUDA device here")
    refused("index", cwd=world, code=2, says="nothing to index given")
    assert not (world / "fresh").exists()
    assert sorted((world / ".xmr" / "index" / "segments").iterdir()) == before


def test_an_index_of_another_model_is_refused(world: Path) -> None:
    settings = [part for setting in (*TINY, "seed=1", "epochs=1") for part in ("--set", setting)]
    must_run("train", "--overwrite", *settings, cwd=world)
    must_run("export", cwd=world)
    refused("index", "corpus", cwd=world, code=1, says="made with model .*pass the right --model, or another --index")
    refused("query", "--text", "a bell", cwd=world, code=1, says="made with model")


@pytest.mark.parametrize(
    ("arguments", "modalities"),
    [
        (("--image", "query/dog.jpg", "--to", "sound"), {"sound"}),
        (("--sound", "query/siren.wav", "--to", "image"), {"image"}),
        (("--text", "a small red bell", "--to", "image,sound"), {"image", "sound"}),
        (("--text", "a dog"), {"image", "sound", "text"}),
    ],
)
def test_query_ranks_the_wanted_modalities(
    finished_world: Path, arguments: tuple[str, ...], modalities: set[str]
) -> None:
    hits = lines(must_run("query", *arguments, "-k", 50, "--json", cwd=finished_world))
    assert {hit["modality"] for hit in hits} == modalities
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    scores = [float(str(hit["score"])) for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert set(hits[0]) == {"rank", "score", "modality", "path", "start_s", "end_s", "text", "id"}


def test_query_finds_a_file_by_itself(finished_world: Path) -> None:
    hits = lines(must_run("query", "--image", "corpus/images/bell-1.jpg", "-k", 1, "--json", cwd=finished_world))
    assert str(hits[0]["path"]).endswith("corpus/images/bell-1.jpg")
    assert float(str(hits[0]["score"])) == pytest.approx(1, abs=1e-5)


def test_query_prints_a_table_and_keeps_to_min_score(finished_world: Path) -> None:
    table = must_run("query", "--text", "a bell", "-k", 3, cwd=finished_world).splitlines()
    assert table[0].split() == ["rank", "score", "modality", "path", "text"]
    assert len(table) == 4
    done = run_xmr("query", "--text", "a bell", "--min-score", 1.5, cwd=finished_world)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no item of the index scores high enough" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "no query given; ask with one or more of --image"),
        (("--text", "a bell", "--minus-text", "a bell"), 1, "cancel each other out"),
        (("--text", "a bell", "--weight", "text=1,2"), 2, "2 weights found for 1 text"),
        (("--text", "a bell", "--weight", "text"), 2, "--weight text found; write it as"),
        (("--text", "a bell", "--group", "x"), 2, "grouped by file"),
        (("--text", "a bell", "--fold", "2"), 2, "fold 2 found"),
        (("--text", "a bell", "--offset", "-1"), 2, "offset -1 found"),
        (("--text", "a bell", "--where", "lable = 1"), 1, "no column lable found"),
        (("--text", "a bell", "--where", "1) OR (1; DROP TABLE items"), 1, "a \\) too many"),
        (("--video", "query/dog.jpg"), 1, "no video by its name"),
        (("--like", "corpus/images/bell-99.jpg"), 1, "nearest file there is .*images/bell"),
        (("a bell",), 2, "'a bell' given; ask with one or more"),
        (("-", "--text", "a bell"), 2, "a question and - given"),
        (("--text", "a bell", "--to", "smell"), 2, "'smell' is no modality"),
        (("--text", "a bell", "-k", "0"), 2, "-k"),
        (("--text", "--fold"), 1, "'--fold': none of its words"),
        (("--text", "a bell", "--to", "speech"), 1, "no speech in this index, it holds image, sound, text"),
        (("--text", "xyzzy"), 1, "none of its words is among"),
        (("--image", "nowhere.jpg"), 1, "nowhere.jpg: cannot be read"),
        (("--image", "corpus/notes.txt"), 1, "no image that Pillow can read"),
        (("--sound", "query/dog.jpg"), 1, "no sound that can be decoded"),
        (("--speech", "query/dog.wav"), 1, "no encoder for speech"),
        (("--text", "a bell", "--index", "nowhere"), 1, "nowhere: no index there"),
        (("--text", "a bell", "--model", "nowhere"), 1, "nowhere: no config.json"),
    ],
)
def test_query_refuses(finished_world: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    refused("query", *arguments, cwd=finished_world, code=code, says=says)


def test_query_adds_parts_up_and_takes_others_away(finished_world: Path) -> None:
    bell, dog = "corpus/images/bell-1.jpg", "corpus/images/dog-1.jpg"
    both = ("query", "--image", bell, "--like", dog, "--json")
    hits = lines(must_run(*both, "--weight", "image=0.01", "-k", 1, cwd=finished_world))
    assert str(hits[0]["path"]).endswith(dog)
    hits = lines(must_run(*both, "--minus-like", dog, "-k", 1, cwd=finished_world))
    assert str(hits[0]["path"]).endswith(bell)
    assert float(str(hits[0]["score"])) == pytest.approx(1, abs=1e-5)


def test_query_by_an_indexed_item_needs_no_model(finished_world: Path) -> None:
    asked = ("query", "--like", "corpus/notes.txt:1", "-k", 1, "--model", "nowhere")
    assert "notes.txt:1" in must_run(*asked, cwd=finished_world)


def test_query_shows_pages_of_files_that_a_condition_holds_of(finished_world: Path) -> None:
    asked = ("query", "--text", "a bell", "--group", "file", "--where", "path LIKE '%bell%' OR medium = 'text'")
    hits = lines(must_run(*asked, "-k", 100, "--json", cwd=finished_world))
    assert len({hit["path"] for hit in hits}) == len(hits) > 3
    page = lines(must_run(*asked, "-k", 2, "--offset", 1, "--json", cwd=finished_world))
    assert page == hits[1:3]
    done = run_xmr(*asked, "--offset", 100, cwd=finished_world)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no hit after the first 100" in done.stderr


def test_query_folds_copies_into_the_better_hit(world: Path) -> None:
    shutil.copy(world / "corpus/images/bell-1.jpg", world / "corpus/images/copy.jpg")
    must_run("index", "corpus", cwd=world)
    asked = ("query", "--image", "corpus/images/bell-1.jpg", "--to", "image", "-k", 50)
    every = lines(must_run(*asked, "--json", cwd=world))
    folded = lines(must_run(*asked, "--fold", "--json", cwd=world))
    assert sum(1 + len(hit["folded"]) for hit in folded) == len(every)  # type: ignore[arg-type]
    assert folded[0]["folded"][0] == every[1]["id"]  # type: ignore[index]
    table = must_run(*asked, "--fold", 0.999999, cwd=world).splitlines()
    assert table[0].split() == ["rank", "score", "modality", "path", "alike", "text"]


def test_query_answers_every_line_of_stdin(finished_world: Path) -> None:
    asked = [b"a bell", b"", b'{"like": "corpus/images/dog-1.jpg", "to": "image", "k": 2}', b"{bad", b"xyzzy"]
    command = [str(XMR), "query", "-", "-k", "1", "--json"]
    done = subprocess.run(command, cwd=finished_world, input=b"\n".join(asked), capture_output=True, timeout=300)
    assert done.returncode == 3
    hits = lines(done.stdout.decode())
    assert [(hit["query"], hit["rank"]) for hit in hits] == [(1, 1), (3, 1), (3, 2)]
    errors = [json.loads(line) for line in done.stderr.decode().splitlines() if line.startswith("{")]
    assert [(error["query"], error["error"][:20]) for error in errors] == [
        (4, "no JSON object found"),
        (5, "'xyzzy': none of its"),
    ]


def test_query_of_stdin_stops_where_there_is_no_model(finished_world: Path) -> None:
    command = [str(XMR), "query", "-", "--model", "nowhere"]
    done = subprocess.run(command, cwd=finished_world, input=b"a\nb", capture_output=True, timeout=300)
    assert (done.returncode, done.stderr.count(b"no config.json")) == (1, 1)


def test_similar_finds_what_is_like_a_file_but_not_the_file(finished_world: Path) -> None:
    hits = lines(
        must_run("similar", "corpus/images/bell-1.jpg", "-k", 50, "--to", "image", "--json", cwd=finished_world)
    )
    assert len(hits) == 11
    assert not [hit for hit in hits if str(hit["path"]).endswith("bell-1.jpg")]
    of_item = lines(must_run("similar", hits[0]["id"], "-k", 1, "--to", "image", "--json", cwd=finished_world))
    assert of_item[0]["id"] != hits[0]["id"]


def test_similar_lists_what_is_there_twice(world: Path) -> None:
    shutil.copy(world / "corpus/images/bell-1.jpg", world / "corpus/images/copy.jpg")
    must_run("index", "corpus", cwd=world)
    asked = ("similar", "--duplicates", "--to", "image", "--min-score", 0.999999)
    found = lines(must_run(*asked, "--json", cwd=world))
    [group] = {one["group"] for one in found if str(one["path"]).endswith("/copy.jpg")}
    assert {Path(str(one["path"])).name for one in found if one["group"] == group} == {"bell-1.jpg", "copy.jpg"}
    done = run_xmr(*asked, cwd=world)
    assert f"of {len(found)} items with a cosine of 0.999999 or more" in done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(found)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "nothing to compare with given"),
        (("1", "--duplicates"), 2, "a file and --duplicates given"),
        (("--duplicates", "--where", "1"), 2, "leave the other options out"),
        (("--duplicates", "-k", "3"), 2, "leave the other options out"),
        (("--duplicates", "--min-score", "2"), 2, "cosine 2 found"),
        (("corpus/images/bell-99.jpg",), 1, "not in the index .*; the nearest file there is"),
        (("99999",), 1, "no item 99999 in this index"),
        (("1", "--index", "nowhere"), 1, "nowhere: no index there"),
    ],
)
def test_similar_refuses(finished_world: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    refused("similar", *arguments, cwd=finished_world, code=code, says=says)


def test_info_tells_what_each_folder_is(finished_world: Path) -> None:
    kinds = [record["kind"] for record in lines(must_run("info", "--json", cwd=finished_world))]
    assert kinds == ["checkpoint", "exported model", "index"]
    model = lines(must_run("info", ".xmr/model", "--json", cwd=finished_world))[0]
    index = lines(must_run("info", ".xmr/index", "--json", cwd=finished_world))[0]
    assert model["fingerprint"] == index["fingerprint"]
    assert index["items"] == {"image": 12, "sound": 12, "text": 8}
    assert "metrics.text→sound.mAP" in must_run("info", cwd=finished_world)


def test_info_refuses(finished_world: Path, tmp_path: Path) -> None:
    refused("info", "corpus", cwd=finished_world, code=1, says="nothing that xmr wrote in it")
    refused("info", "nowhere", cwd=finished_world, code=1, says="no such folder")
    refused("info", cwd=tmp_path, code=1, says="no workspace of xmr here")


def test_commands_work_from_a_folder_below_the_workspace(finished_world: Path) -> None:
    hits = must_run("query", "--image", "../query/dog.jpg", "-k", 1, "--to", "image", cwd=finished_world / "corpus")
    assert "images/" in hits


def test_a_moved_model_folder_still_opens(world: Path) -> None:
    shutil.move(world / ".xmr" / "model", world / "elsewhere")
    assert must_run("query", "--text", "a dog", "--model", "elsewhere", cwd=world)
