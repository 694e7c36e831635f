"""Manifests in a corpus: which files they bring, what they say of them, and that they lead to nothing outside."""

import json
from pathlib import Path

import pytest

from xmr.engine.corpus import Scan, scan

MEDIA = ("image", "audio", "text")


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def write_rows(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(corpus: Scan) -> dict[str, dict[str, object]]:
    return {file.path.name: dict(file.metadata) for file in corpus.files}


def test_a_manifest_brings_its_files_with_metadata_and_is_the_text_file_of_its_texts(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "sounds/a.wav", "images/unlisted.jpg")
    row = {"image": "images/a.jpg", "sound": "sounds/a.wav", "captions": ["x", "y"], "n": 1, "box": {"a": [1.5]}}
    manifest = write_rows(tmp_path / "pairs.jsonl", row)
    corpus = scan([manifest], MEDIA)
    assert said(corpus) == {
        "a.jpg": {"n": 1, "box": {"a": [1.5]}, "captions": ["x", "y"]},
        "a.wav": {"n": 1, "box": {"a": [1.5]}, "captions": ["x", "y"]},
        "pairs.jsonl": {},
    }
    assert {file.root for file in corpus.files} == {manifest}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_in_a_folder_describes_its_files_and_is_no_file_of_another_kind(name: str, tmp_path: Path) -> None:
    make(tmp_path, "train/cat/0.jpg", "train/1.jpg", "train/2.jpg")
    rows = {"file_name": ["cat/0.jpg", "1.jpg"], "label": [7, 8]}
    if name.endswith(".parquet"):
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(rows), tmp_path / "train" / name)
    elif name.endswith(".jsonl"):
        write_rows(
            tmp_path / "train" / name, *({"file_name": f, "label": n} for f, n in zip(*rows.values(), strict=True))
        )
    else:
        cells = "\n".join("\t".join(map(str, row)) for row in (rows, *zip(*rows.values(), strict=True)))
        (tmp_path / "train" / name).write_text(cells.replace("\t", "," if name.endswith("csv") else "\t"))
    corpus = scan([tmp_path], MEDIA)
    assert said(corpus) == {"1.jpg": {"label": 8}, "2.jpg": {}, "0.jpg": {"label": 7}}
    assert (corpus.n_ignored, corpus.notes, corpus.unreadable) == (0, [], {})


def test_columns_of_hugging_face_that_end_in_file_name_name_files(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    write_rows(
        tmp_path / "metadata.jsonl", {"left_file_name": "a.jpg", "right_file_name": "b.jpg", "n": 1, "text": "x"}
    )
    assert said(scan([tmp_path], MEDIA)) == {
        "a.jpg": {"n": 1, "text": "x"},
        "b.jpg": {"n": 1, "text": "x"},
        "metadata.jsonl": {},
    }


def test_what_earlier_rows_say_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    manifest = write_rows(tmp_path / "m.jsonl", {"image": "a.jpg", "n": 1}, {"image": "a.jpg", "n": 2, "m": 3})
    assert said(scan([manifest], MEDIA)) == {"a.jpg": {"n": 1, "m": 3}}


def test_a_file_that_is_missing_is_named_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    manifest = write_rows(tmp_path / "m.jsonl", {"image": "a.jpg"}, {"image": "none.jpg"})
    for path in (manifest, tmp_path):
        reason = f"none.jpg: cannot be read (No such file or directory), named by line 2 of {manifest}; mend the line"
        assert scan([path], MEDIA).unreadable == {manifest / "line 2: none.jpg": reason}


def test_each_file_that_a_row_names_in_vain_is_told(tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "m.jsonl", {"image": "a.jpg", "sound": "../a.wav"})
    told = sorted(scan([manifest], MEDIA).unreadable.values())
    assert [reason.partition(":")[0] for reason in told] == ["../a.wav", "a.jpg"]


@pytest.mark.parametrize("where", ["relative", "absolute", "link", "linked folder"])
def test_nothing_outside_the_folders_is_read(where: str, tmp_path: Path) -> None:
    outside, inside = make(tmp_path / "out", "secret.jpg"), make(tmp_path / "in", "a.jpg")
    (inside / "link.jpg").symlink_to(outside / "secret.jpg")
    (inside / "folder").symlink_to(outside)
    named = {"relative": "../out/secret.jpg", "absolute": str(outside / "secret.jpg")}
    named |= {"link": "link.jpg", "linked folder": "folder/secret.jpg"}
    manifest = write_rows(inside / "m.jsonl", {"image": "a.jpg"}, {"image": named[where]})
    corpus = scan([manifest], MEDIA)
    assert list(said(corpus)) == ["a.jpg"]
    [reason] = corpus.unreadable.values()
    assert "outside the folders that were given" in reason


def test_files_of_a_manifest_may_be_in_any_of_the_given_folders(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "pairs/a.wav")
    rows = [{"image": "../images/a.jpg", "sound": "a.wav", "n": 1}, {"image": str(tmp_path / "images/a.jpg"), "m": 2}]
    manifest = write_rows(tmp_path / "pairs/m.jsonl", *rows)
    for paths in ([manifest, tmp_path / "images"], [tmp_path / "pairs", tmp_path / "images"], [tmp_path]):
        assert said(scan(paths, MEDIA)) == {"a.jpg": {"n": 1, "m": 2}, "a.wav": {"n": 1}}


@pytest.mark.parametrize("named", ["http://a.b/c.jpg", "a\0.jpg", "x" * 5000 + ".jpg", "folder.jpg", "pipe.jpg"])
def test_rows_that_name_no_file_are_told(named: str, tmp_path: Path) -> None:
    import os

    make(tmp_path, "a.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    manifest = write_rows(tmp_path / "m.jsonl", {"image": "a.jpg"}, {"image": named})
    corpus = scan([manifest], MEDIA)
    assert list(said(corpus)) == ["a.jpg"]
    [reason] = corpus.unreadable.values()
    assert f"line 2 of {manifest}" in reason or "line 2 names" in reason


def test_rows_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"image": "a.jpg"}\n{"image":\n{"image": "b.jpg"}\n')
    corpus = scan([manifest], MEDIA)
    assert list(said(corpus)) == ["a.jpg", "b.jpg"]
    assert corpus.notes == [f"{manifest}: line 2: no JSON found, a JSON object expected; mend the line"]


def test_tables_without_files_are_texts_and_those_without_texts_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    (tmp_path / "texts.csv").write_text("caption,n\na dog,1\n")
    (tmp_path / "numbers.csv").write_text("n\n1\n")
    corpus = scan([tmp_path], MEDIA)
    assert list(said(corpus)) == ["a.jpg", "texts.csv"]
    assert corpus.ignored == {"as table without texts": 1}
    assert list(said(scan([tmp_path], MEDIA, text_column="n"))) == ["a.jpg", "numbers.csv", "texts.csv"]


def test_pictures_inside_of_a_parquet_table_are_told_to_be_left_out(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    make(tmp_path, "a.jpg")
    pictures = [{"bytes": b"x", "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}]
    parquet.write_table(arrow.table({"image": pictures, "text": ["a dog", "a bell"]}), tmp_path / "t.parquet")
    parquet.write_table(arrow.table({"image": pictures[1:], "text": ["a dog"]}), tmp_path / "u.parquet")
    assert scan([tmp_path], MEDIA).notes == [
        f"{tmp_path}/t.parquet: column image.bytes holds bytes, such as files in the table itself, which are left out; "
        "save them as files"
    ]


def test_the_list_beside_embeddings_is_no_manifest(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "features.npy")
    write_rows(tmp_path / "features.jsonl", {"path": "a.jpg", "modality": "image", "text": None})
    corpus = scan([tmp_path], MEDIA)
    assert said(corpus) == {"a.jpg": {}}
    assert corpus.ignored["as list of embeddings"] == 1


def test_ignored_and_hidden_files_stay_out_though_a_manifest_in_the_folder_names_them(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", ".c.jpg")
    (tmp_path / ".gitignore").write_text("b.jpg\n")
    write_rows(tmp_path / "m.jsonl", *({"image": name} for name in ("a.jpg", "b.jpg", ".c.jpg")))
    assert list(said(scan([tmp_path], MEDIA))) == ["a.jpg"]
