"""Localising: heat, points and boxes against hand-worked cases, places brought back to the file, and the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import run_xmr
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from xmr.engine import localize as localize_module
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.files import sha256_of
from xmr.engine.localize import (
    PictureHeat,
    SoundHeat,
    area_of,
    as_record,
    box_of,
    check_out,
    draw,
    heat_of,
    hot_region,
    localize,
    matched,
    point_of,
    spans_of,
    target_modality,
)
from xmr.engine.localize.draw import colours, stretched
from xmr.engine.media import MODALITIES, image, sound
from xmr.engine.model import Model, fingerprint
from xmr.train.onnx_network import to_onnx

Array = NDArray[Any]
RED = (220, 30, 30)


# from places and a query to heat


def test_all_dimensions_give_the_inner_product_at_every_place() -> None:
    rng = np.random.default_rng(0)
    places, query = rng.standard_normal((5, 2, 3)), rng.standard_normal(5)
    by_hand = [[sum(query[d] * places[d, row, column] for d in range(5)) for column in range(3)] for row in range(2)]
    np.testing.assert_allclose(heat_of(places, query), by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_dims", "by", "expected"),
    [
        (1, "value", [0.5 * 10]),  # the largest is the third
        (2, "value", [0.5 * 10 + 0.1 * 1]),
        (3, "value", [0.5 * 10 + 0.1 * 1 + 0.9 * 100]),  # |v| weighs the negative dimension as if it were positive
        (1, "magnitude", [-0.9 * 100]),  # the largest |v| is the second's, and counts against the place
        (2, "magnitude", [-0.9 * 100 + 0.5 * 10]),
        (None, "magnitude", [-0.9 * 100 + 0.5 * 10 + 0.1 * 1]),
    ],
)
def test_the_largest_dimensions_are_chosen_by_value_or_by_magnitude(
    n_dims: Any, by: Any, expected: list[float]
) -> None:
    query, places = np.array([0.1, -0.9, 0.5]), np.array([[1.0], [100.0], [10.0]])
    np.testing.assert_allclose(heat_of(places, query, n_dims, by), expected, rtol=1e-6)


@pytest.mark.parametrize(("dims", "n_dims", "said"), [(4, None, "the query is"), (3, 0, "n_dims is 0")])
def test_places_and_query_have_to_fit(dims: int, n_dims: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        heat_of(np.zeros((3, 2, 2)), np.zeros(dims), n_dims)


# from heat to a point and a box


def test_the_point_is_the_middle_of_the_hottest_cell_or_its_corner() -> None:
    heat = np.zeros((2, 4))
    heat[1, 2] = 1
    assert point_of(heat, (0, 0, 400, 100)) == (250, 75)  # cells of 100 by 50
    assert point_of(heat, (0, 0, 400, 100), "corner") == (200, 50)
    assert point_of(heat, (10, 20, 40, 10)) == (35, 27.5)


def test_of_two_hottest_cells_the_first_in_reading_order_is_the_point() -> None:
    assert point_of(np.array([[0, 1], [1, 0]]), (0, 0, 2, 2)) == (1.5, 0.5)


def test_the_box_is_around_the_largest_connected_region() -> None:
    heat = np.array(
        [
            [9, 0, 0, 0, 0],
            [0, 8, 8, 0, 0],
            [0, 8, 0, 0, 10],
            [0, 0, 0, 0, 0],
        ]
    )
    # 9 and 8 meet at a corner, which connects nothing; 10 is hotter but one cell
    assert box_of(heat, (0, 0, 50, 40)) == (10, 10, 20, 20)
    assert box_of(heat, (100, 200, 5, 4)) == (101, 201, 2, 2)
    assert box_of(heat, (0, 0, 50, 40), share=0.95) == (40, 20, 10, 10)


def test_of_regions_of_one_size_the_hotter_one_is_taken() -> None:
    assert hot_region(np.array([[5, 0, 9]]))[0].tolist() == [False, False, True]


@pytest.mark.parametrize("value", [0.0, -3.0, 7.5])
def test_where_all_cells_are_alike_all_are_the_box(value: float) -> None:
    assert box_of(np.full((3, 2), value), (0, 0, 20, 30)) == (0, 0, 20, 30)


def slow_region(heat: Array, share: float) -> set[tuple[int, int]]:
    """A flood fill, cell by cell."""
    low, high = heat.min(), heat.max()
    hot = {
        (r, c) for r in range(heat.shape[0]) for c in range(heat.shape[1]) if heat[r, c] - low >= share * (high - low)
    }
    regions = []
    while hot:
        region, edge = set(), [min(hot)]
        while edge:
            r, c = edge.pop()
            if (r, c) in hot:
                hot.remove((r, c))
                region.add((r, c))
                edge += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        regions.append(region)
    return max(regions, key=lambda region: (len(region), max(heat[cell] for cell in region)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 7), (13, 5)])
def test_the_hot_region_is_that_of_a_flood_fill(shape: tuple[int, int], seed: int) -> None:
    heat = np.random.default_rng(seed).random(shape)
    found = hot_region(heat, share=0.5)
    assert {(int(r), int(c)) for r, c in zip(*np.nonzero(found), strict=True)} == slow_region(heat, 0.5)


# back to the file


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("margin", [0.0, 0.0625, 0.2])
@pytest.mark.parametrize("size", [(300, 200), (120, 480), (97, 64)])
def test_a_place_in_the_square_is_found_again_in_the_picture(
    size: tuple[int, int], margin: float, resize: Any, tmp_path: Path
) -> None:
    settings = image.Preprocessing(64, resize, margin)
    picture = Image.new("RGB", size)
    spot = (round(size[0] * 0.56), round(size[1] * 0.45))
    picture.paste("white", (spot[0] - 8, spot[1] - 8, spot[0] + 8, spot[1] + 8))
    square = image.to_square(picture, settings, tmp_path).mean(axis=2)
    rows, columns = np.nonzero(square > 128)
    x, y, width, height = area_of(size, settings)
    found = x + (columns.mean() + 0.5) * width / 64, y + (rows.mean() + 0.5) * height / 64
    # to a pixel of the square
    assert abs(found[0] - spot[0]) <= width / 64
    assert abs(found[1] - spot[1]) <= height / 64


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation, expected in ((1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))):
        exif[0x0112] = orientation
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert image.upright_size(tmp_path / "a.jpg") == expected


def windows(path: Path, duration_s: float, settings: sound.Preprocessing) -> list[Any]:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * settings.rate_hz))
    soundfile.write(path, samples, settings.rate_hz)
    return sound.load(path, settings).pieces


def test_the_steps_of_a_long_sound_follow_each_other_without_overlap(tmp_path: Path) -> None:
    settings = sound.Preprocessing(1000, window_s=2.0, hop_s=2.0)
    pieces = windows(tmp_path / "a.wav", 5.0, settings)  # 0-2, 2-4, 3-5 s
    spans = spans_of(pieces, 4, 2.0, 0.25, 0.5)
    told = spans[~np.isnan(spans[:, 0])]
    np.testing.assert_allclose(told[:, 0], np.arange(10) / 2, atol=1e-9)
    np.testing.assert_allclose(told[:, 1], np.arange(1, 11) / 2, atol=1e-9)


@pytest.mark.parametrize("fill", ["repeat", "silence"])
def test_the_steps_of_a_short_clip_end_where_it_ends(fill: Any, tmp_path: Path) -> None:
    settings = sound.Preprocessing(1000, window_s=2.0, hop_s=2.0, fill=fill)
    spans = spans_of(windows(tmp_path / "a.wav", 0.8, settings), 4, 2.0, 0.25, 0.5)
    # the middle of the second step, at 0.75 s, is in the clip; that of the third is not
    np.testing.assert_allclose(spans, [[0, 0.5], [0.5, 0.8], [np.nan] * 2, [np.nan] * 2])


def test_a_clip_shorter_than_half_a_step_has_one(tmp_path: Path) -> None:
    settings = sound.Preprocessing(1000, window_s=2.0, hop_s=2.0)
    spans = spans_of(windows(tmp_path / "a.wav", 0.1, settings), 4, 2.0, 0.25, 0.5)
    np.testing.assert_allclose(spans, [[0, 0.1], *[[np.nan] * 2] * 3])


def test_steps_lie_where_the_layers_below_put_them(tmp_path: Path) -> None:
    settings = sound.Preprocessing(1000, window_s=5.0, hop_s=5.0)
    spans = spans_of(windows(tmp_path / "a.wav", 5.0, settings), 4, 5.0, -0.5, 1.5)
    # the middles are -0.5, 1, 2.5 and 4 s; what is before the first and behind the last belongs to them
    np.testing.assert_allclose(spans, [[0, 0.25], [0.25, 1.75], [1.75, 3.25], [3.25, 5]])


@pytest.mark.parametrize(("window_s", "duration_s"), [(5.0, 3.0), (5.0, 0.2), (2.0, 2.1), (2.0, 3.3), (2.0, 3.6)])
def test_the_steps_told_of_reach_from_the_start_of_a_sound_to_its_end(
    window_s: float, duration_s: float, tmp_path: Path
) -> None:
    settings = sound.Preprocessing(1000, window_s=window_s, hop_s=window_s)
    spans = spans_of(windows(tmp_path / "a.wav", duration_s, settings), 4, window_s, window_s / 8, window_s / 4)
    told = spans[~np.isnan(spans[:, 0])]
    assert (told[0, 0], told[-1, 1]) == (0, duration_s)
    np.testing.assert_array_equal(told[1:, 0], told[:-1, 1])
    assert (told[:, 0] < told[:, 1]).all()


# a model whose maps are known


class Redness(nn.Module):
    """(n, 32, 32, 3) pixels -> (n, dim, 4, 4): a query, as much of it as a cell is redder than green."""

    def __init__(self, query: Array) -> None:
        super().__init__()
        self.query: Tensor
        self.register_buffer("query", torch.from_numpy(query).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        red = pixels[..., 0].float() - pixels[..., 1].float()
        return self.query * nn.functional.avg_pool2d(red.unsqueeze(1), 8) / 255


class Loudness(nn.Module):
    """(n, t) samples -> (n, dim, 8): a query, as much of it as a step is loud."""

    def __init__(self, query: Array) -> None:
        super().__init__()
        self.query: Tensor
        self.register_buffer("query", torch.from_numpy(query).view(1, -1, 1))

    def forward(self, samples: Tensor) -> Tensor:
        return self.query * nn.functional.avg_pool1d(samples.abs().unsqueeze(1), 5512)


def rewrite_map(folder: Path, modality: str, network: nn.Module, batch: Array) -> None:
    path = folder / "onnx" / f"{modality}.map.onnx"
    to_onnx(network, batch, path, input_name=modality, output_names=["map"], dynamic_axes=[0])
    edit(folder, lambda config: config["sha256"].update({f"onnx/{modality}.map.onnx": sha256_of(path)}))


def edit(folder: Path, change: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def seeing_red(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model for which "a bell" is what is red, and what is loud."""
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("red") / "model"))
    [query] = Model.open(exported, device="cpu").embed("text", ["a bell"])
    rewrite_map(folder, "image", Redness(query), np.zeros((2, 32, 32, 3), dtype=np.uint8))
    rewrite_map(folder, "sound", Loudness(query), np.zeros((2, 44100), dtype=np.float32))
    edit(folder, lambda config: config["modalities"]["sound"]["maps"].update(first_s=0.125, step_s=0.25))
    return folder


def red_square(path: Path, size: tuple[int, int], box: tuple[int, int, int, int], **saved: Any) -> Path:
    picture = Image.new("RGB", size, "white")
    picture.paste(RED, box)
    picture.save(path, **saved)
    return path


def test_what_is_asked_for_is_found_in_a_squashed_picture(seeing_red: Path, tmp_path: Path) -> None:
    model = Model.open(seeing_red, device="cpu")
    path = red_square(tmp_path / "a.png", (400, 200), (200, 0, 300, 50))
    heat = localize(model, "text", "a bell", "image", path)
    assert isinstance(heat, PictureHeat)
    assert (heat.values.shape, heat.size, heat.area) == ((4, 4), (400, 200), (0, 0, 400, 200))
    assert (heat.point, heat.box) == ((250, 25), (200, 0, 100, 50))


def test_what_is_asked_for_is_found_in_a_cropped_picture(seeing_red: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(seeing_red, tmp_path / "model"))
    edit(folder, lambda config: config["modalities"]["image"]["preprocessing"].update(resize="crop", margin=0.1))
    # of 400 x 200 the centre square is 100 ... 300, less 20 on each side 120 ... 280 and 20 ... 180: cells of 40
    path = red_square(tmp_path / "a.png", (400, 200), (200, 60, 240, 100))
    heat = localize(Model.open(folder, device="cpu"), "text", "a bell", "image", path)
    assert isinstance(heat, PictureHeat)
    assert heat.area == (120, 20, 160, 160)
    assert (heat.point, heat.box) == ((220, 80), (200, 60, 40, 40))


def test_a_picture_stored_on_its_side_is_answered_as_it_is_seen(seeing_red: Path, tmp_path: Path) -> None:
    upright = Image.new("RGB", (200, 400), "white")
    upright.paste(RED, (150, 0, 200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by a quarter, clockwise
    upright.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif, quality=95)
    heat = localize(Model.open(seeing_red, device="cpu"), "text", "a bell", "image", tmp_path / "a.jpg")
    assert isinstance(heat, PictureHeat)
    assert (heat.size, heat.point, heat.box) == ((200, 400), (175, 50), (150, 0, 50, 100))


def test_what_is_asked_for_is_found_in_a_sound(seeing_red: Path, tmp_path: Path) -> None:
    samples = np.zeros(5 * 22050, dtype=np.float32)
    samples[round(3.5 * 22050) : round(3.75 * 22050)] = 0.8  # windows of 2 s in steps of a quarter
    samples[round(3.75 * 22050) : 4 * 22050] = 0.7
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    heat = localize(Model.open(seeing_red, device="cpu"), "text", "a bell", "sound", tmp_path / "a.wav")
    assert isinstance(heat, SoundHeat)
    assert heat.values.shape == (20,)
    assert heat.seconds == pytest.approx(3.625)
    assert heat.span_s == pytest.approx((3.5, 4.0))


def test_the_duration_is_that_of_the_sound(seeing_red: Path, tmp_path: Path) -> None:
    model = Model.open(seeing_red, device="cpu")
    for duration_s in (0.6, 3.3):
        soundfile.write(tmp_path / "a.wav", np.full(round(duration_s * 22050), 0.5), 22050)
        heat = localize(model, "text", "a bell", "sound", tmp_path / "a.wav")
        assert as_record(heat)["duration_s"] == duration_s


def loud_at(path: Path, *seconds: float) -> Path:
    """Five seconds of near silence, each of the seconds louder than the one before for a tenth."""
    samples = np.full(5 * 22050, 0.01, dtype=np.float32)
    for number, second in enumerate(seconds, start=1):
        samples[round(second * 22050) : round((second + 0.1) * 22050)] = 0.4 * number
    soundfile.write(path, samples, 22050)
    return path


def test_a_picture_is_held_against_each_step_of_a_sound_where_both_give_shares(
    seeing_red: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(seeing_red, tmp_path / "model"))
    path = red_square(tmp_path / "a.png", (400, 200), (200, 0, 300, 50))
    query = loud_at(tmp_path / "a.wav", 0.6, 3.6)
    alone = localize(Model.open(folder, device="cpu"), "sound", query, "image", path)
    assert "heard_s" not in as_record(alone)  # unit embeddings of a place say nothing of how much of it there is
    for modality in ("image", "sound"):
        edit(folder, lambda config, of=modality: config["modalities"][of]["maps"].update(gives="shares"))
    model = Model.open(folder, device="cpu")
    heat = localize(model, "sound", query, "image", path)
    assert isinstance(heat, PictureHeat)
    assert (heat.point, heat.score) == ((250, 25), alone.score)
    assert as_record(heat)["heard_s"] == 3.625
    assert as_record(localize(model, "text", "a bell", "image", path)).keys() == as_record(alone).keys()


def test_a_place_is_as_hot_as_the_step_that_fits_it_best() -> None:
    rng = np.random.default_rng(0)
    places, steps = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 4))
    spans_s = np.array([[0, 1], [1, 2], [2, 3], [3, 3.5]])
    heat, heard_s = matched(places, steps, spans_s)
    by_hand = {(r, c, t): float(places[:, r, c] @ steps[:, t]) for r in range(2) for c in range(3) for t in range(4)}
    for row in range(2):
        for column in range(3):
            assert heat[row, column] == pytest.approx(max(by_hand[row, column, t] for t in range(4)), rel=1e-5)
    assert heard_s == spans_s[max(by_hand, key=lambda place: by_hand[place])[2]].mean()


def test_a_target_is_decoded_once(seeing_red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xmr.engine.media import decode as module

    model, path = Model.open(seeing_red, device="cpu"), loud_at(tmp_path / "a.wav", 1.0)
    decoded: list[module.Task] = []
    once = module.decode
    for place in (module, localize_module):
        monkeypatch.setattr(place, "decode", lambda task, settings: (decoded.append(task), once(task, settings))[1])
    draw(path, localize(model, "text", "a bell", "sound", path), tmp_path / "out.png")
    assert [task.path for task in decoded] == [path]


def test_heat_and_score_are_those_of_the_networks(exported: Path, finished_world: Path) -> None:
    model = Model.open(exported, device="cpu")
    path = finished_world / "query" / "dog.jpg"
    [piece] = MODALITIES["image"].load(path, model.preprocessing["image"]).pieces
    query, whole = model.embed("sound", [finished_world / "query" / "dog.wav"])[0], model.embed("image", [path])[0]
    heat = localize(model, "sound", finished_world / "query" / "dog.wav", "image", path)
    expected = np.einsum("d,dhw->hw", query, model.map_arrays("image", [piece.array])[0])
    np.testing.assert_allclose(heat.values, expected, atol=1e-6)
    assert heat.score == pytest.approx(float(query @ whole), abs=1e-6)


# models with and without maps


def without_maps(folder: Path, *modalities: str) -> None:
    """As a version wrote it that knew none."""

    def remove(config: dict[str, Any]) -> None:
        for modality in modalities:
            del config["sha256"][config["modalities"][modality].pop("maps")["file"]]
            (folder / "onnx" / f"{modality}.map.onnx").unlink()

    edit(folder, remove)


def test_a_model_without_maps_still_embeds_and_has_the_same_fingerprint(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    without_maps(folder, "image", "sound")
    bare, mapped = Model.open(folder, device="cpu"), Model.open(exported, device="cpu")
    assert (bare.mapped, mapped.mapped) == ([], ["image", "sound"])
    assert bare.fingerprint == mapped.fingerprint == fingerprint(mapped.config)
    np.testing.assert_array_equal(bare.embed("text", ["a bell"]), mapped.embed("text", ["a bell"]))


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (("image", "sound"), "keeps no maps, so it cannot tell where in image"),
        (("image",), "keeps maps of sound alone"),
    ],
)
def test_a_model_without_a_map_says_so(exported: Path, tmp_path: Path, removed: tuple[str, ...], said: str) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    without_maps(folder, *removed)
    with pytest.raises(XmrError, match=said):
        localize(Model.open(folder), "text", "a bell", "image", tmp_path / "a.jpg")


def test_a_map_network_that_was_changed_is_refused_when_it_is_asked(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    (folder / "onnx" / "image.map.onnx").write_bytes(b"other")
    model = Model.open(folder, device="cpu")
    assert model.embed("text", ["a bell"]).shape == (1, model.dim)
    with pytest.raises(XmrError, match=r"image\.map\.onnx: changed since it was exported"):
        localize(model, "text", "a bell", "image", red_square(tmp_path / "a.png", (40, 40), (0, 0, 9, 9)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config["modalities"]["image"].update(maps="yes"), "the part of image is damaged"),
        (lambda config: config["modalities"]["image"]["maps"].pop("output"), "the part of image is damaged"),
        (lambda config: config["modalities"]["sound"]["maps"].pop("step_s"), "the part of sound is damaged"),
        (lambda config: config["modalities"]["image"]["maps"].update(file="../x"), "used, but has no checksum"),
    ],
)
def test_a_damaged_entry_of_maps_is_refused(exported: Path, tmp_path: Path, change: Any, said: str) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    edit(folder, change)
    with pytest.raises(XmrError, match=said):
        Model.open(folder)


def test_maps_that_are_no_numbers_are_refused(seeing_red: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(seeing_red, tmp_path / "model"))
    nothing = np.full(Model.open(folder).dim, np.nan, dtype=np.float32)
    rewrite_map(folder, "image", Redness(nothing), np.zeros((2, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(XmrError, match="makes no usable map of this image"):
        localize(
            Model.open(folder, device="cpu"),
            "text",
            "a bell",
            "image",
            red_square(tmp_path / "a.png", (40, 40), (0, 0, 9, 9)),
        )


def test_a_file_is_looked_into_as_what_its_suffix_says(exported: Path) -> None:
    model = Model.open(exported, device="cpu")
    assert target_modality(model, Path("a.JPG")) == "image"
    assert target_modality(model, Path("a.wav")) == "sound"
    for name, wish, said in (
        ("a.txt", None, "neither an image nor a sound"),
        ("a.wav", "image", "--as image: a.wav can be looked into as sound or speech"),
        ("a.wav", "speech", "has no encoder for speech"),
    ):
        with pytest.raises(XmrError, match=said):
            target_modality(model, Path(name), wish)


# drawing


def test_heat_is_drawn_from_its_coldest_to_its_hottest() -> None:
    np.testing.assert_allclose(stretched(np.array([[2.0, 4.0], [3.0, 2.0]])), [[0, 1], [0.5, 0]])
    np.testing.assert_array_equal(stretched(np.full((2, 2), 5.0)), np.zeros((2, 2)))


def test_hotter_is_lighter() -> None:
    shades = colours(np.linspace(0, 1, 50, dtype=np.float32))
    assert (np.diff(shades @ np.array([0.2126, 0.7152, 0.0722])) > 0).all()
    assert (tuple(shades[0]), tuple(shades[-1])) == ((13, 8, 52), (252, 248, 172))


def test_the_picture_changes_where_it_is_hot_and_not_where_it_is_cold(seeing_red: Path, tmp_path: Path) -> None:
    model = Model.open(seeing_red, device="cpu")
    path = red_square(tmp_path / "a.png", (800, 400), (400, 0, 600, 100))
    heat = localize(model, "text", "a bell", "image", path)
    draw(path, heat, tmp_path / "out.png")
    with Image.open(path) as before, Image.open(tmp_path / "out.png") as after:
        assert (after.size, after.format, after.mode) == ((800, 400), "PNG", "RGB")
        assert after.getpixel((50, 350)) == before.getpixel((50, 350)) == (255, 255, 255)
        assert after.getpixel((470, 60)) != before.getpixel((470, 60))


@pytest.mark.parametrize(("size", "drawn"), [((4000, 1000), (1600, 400)), ((60, 30), (480, 240))])
def test_a_picture_is_drawn_at_a_size_to_look_at(
    seeing_red: Path, tmp_path: Path, size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    model = Model.open(seeing_red, device="cpu")
    path = red_square(tmp_path / "a.png", size, (0, 0, size[0] // 4, size[1] // 4))
    draw(path, localize(model, "text", "a bell", "image", path), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == drawn


def test_a_see_through_picture_is_drawn_on_white(seeing_red: Path, tmp_path: Path) -> None:
    model = Model.open(seeing_red, device="cpu")
    picture = Image.new("RGBA", (480, 480), (0, 0, 0, 0))
    picture.paste((*RED, 255), (0, 0, 120, 120))
    picture.save(tmp_path / "a.png")
    heat = localize(model, "text", "a bell", "image", tmp_path / "a.png")
    draw(tmp_path / "a.png", heat, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.getpixel((400, 400)) == (255, 255, 255)


def test_a_picture_of_16_bits_is_drawn_as_the_model_saw_it(tmp_path: Path) -> None:
    Image.fromarray(np.full((480, 480), 60 << 8, dtype=np.uint16)).save(tmp_path / "a.png")
    [seen] = image.load(tmp_path / "a.png", image.Preprocessing(64)).pieces
    cold = PictureHeat(np.zeros((2, 2), np.float32), 0.5, (480, 480), (0, 0, 480, 480), (9, 9), (0, 0, 20, 20))
    draw(tmp_path / "a.png", cold, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.getpixel((400, 400)) == tuple(seen.array[0, 0]) == (60, 60, 60)


def test_a_sound_is_drawn_lighter_where_it_is_hot(seeing_red: Path, tmp_path: Path) -> None:
    samples = np.full(2 * 22050, 0.01, dtype=np.float32)
    samples[22050 : round(1.25 * 22050)] = 0.8
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    model = Model.open(seeing_red, device="cpu")
    heat = localize(model, "text", "a bell", "sound", tmp_path / "a.wav")
    draw(tmp_path / "a.wav", heat, tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as drawn:
        below = np.asarray(drawn.convert("L"), dtype=int)[230]  # below the waveform
    assert int(np.argmax(below[:550])) > 480  # the hot quarter is 500 ... 625
    assert below[540] > below[100] + 100


# what is printed


def test_a_record_is_rounded_and_ready_for_json() -> None:
    values = np.zeros((1, 1), dtype=np.float32)
    picture = PictureHeat(values, 0.123456, (40, 20), (0, 0, 40, 20), (1 / 3, 2), (0, 0, 39.96, 20))
    assert json.loads(json.dumps(as_record(picture))) == {
        "score": 0.1235,
        "point": [0.3, 2],
        "box": [0, 0, 40, 20],
        "size": [40, 20],
    }
    samples = np.zeros(7, dtype=np.float32)
    heard = SoundHeat(values[0], 0.5, np.array([[0.0, 0.7]]), 0.35, (0.0, 0.70004), samples, 10)
    assert as_record(heard) == {"score": 0.5, "seconds": 0.35, "span_s": [0, 0.7], "duration_s": 0.7}


# what is written


@pytest.mark.parametrize("name", ["query.png", "target.PNG", "sub/../query.png", "heat.gif"])
def test_a_file_that_is_looked_at_is_never_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    given = [tmp_path / "target.PNG", tmp_path / "query.png"]
    with pytest.raises(UsageError, match="a PNG of another name than the given files' is written"):
        check_out(tmp_path / name, given, overwrite=True)


def test_a_png_that_is_there_is_replaced_on_request_only(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(XmrError, match=r"a\.png: exists already; replace it with --overwrite"):
        check_out(tmp_path / "a.png", [], overwrite=False)
    check_out(tmp_path / "a.png", [], overwrite=True)
    check_out(tmp_path / "new.png", [], overwrite=False)


def test_a_png_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    for name, said in (("a.png", "a folder has the name"), ("none/b.png", "none: no such folder; make it")):
        with pytest.raises(XmrError, match=said):
            check_out(tmp_path / name, [], overwrite=True)


def test_the_command_prints_point_and_box_and_writes_the_picture(finished_world: Path, tmp_path: Path) -> None:
    picture = finished_world / "query" / "dog.jpg"
    model = ("--model", finished_world / ".xmr" / "model")
    done = run_xmr("localize", "--image", picture, "--text", "a dog", *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line] == ["score", "point", "box", "size", "heat"]
    with Image.open(tmp_path / "dog.jpg.heat.png") as drawn:
        assert drawn.size == (480, 480)


def test_the_command_prints_one_object_for_a_sound_asked_by_an_image(finished_world: Path, tmp_path: Path) -> None:
    files = finished_world / "query"
    asked = ("--in", files / "dog.wav", "--image", files / "dog.jpg", "--out", "o.png", "--json")
    done = run_xmr("localize", *asked, "--model", finished_world / ".xmr" / "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {key: found[key] for key in ("modality", "path", "query_modality", "query", "out")} == {
        "modality": "sound",
        "path": str(files / "dog.wav"),
        "query_modality": "image",
        "query": str(files / "dog.jpg"),
        "out": "o.png",
    }
    assert 0 <= found["span_s"][0] < found["span_s"][1] <= found["duration_s"]
    assert 0 <= found["seconds"] <= found["duration_s"]
    assert (tmp_path / "o.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "a dog"), "nothing to look into given; name an image or a sound with --in"),
        (("--image", "a.jpg"), "no query given; ask with exactly one of --sound, --speech, --text"),
        (("--in", "a.jpg"), "no query given; ask with exactly one of --image, --sound, --speech, --text"),
        (("--in", "a.jpg", "--text", "x", "--sound", "b.wav"), "--sound and --text given"),
        (("--image", "a.jpg", "--text", "x", "--out", "a.gif"), "--out a.gif: a PNG of another name"),
        (("--image", "a.png", "--text", "x", "--out", "a.png"), "--out a.png: a PNG of another name"),
        (("--in", "a.wav", "--image", "b.png", "--out", "b.png"), "--out b.png: a PNG of another name"),
    ],
)
def test_a_command_line_that_cannot_be_exits_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run_xmr("localize", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_command_keeps_a_heat_map_that_is_there(finished_world: Path, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg.heat.png").write_bytes(b"of another dog")
    asked = ("--image", finished_world / "query" / "dog.jpg", "--text", "a dog", "--model", "none")
    done = run_xmr("localize", *asked, cwd=tmp_path)
    assert done.returncode == 1
    assert "dog.jpg.heat.png: exists already; replace it with --overwrite" in done.stderr
    assert (tmp_path / "dog.jpg.heat.png").read_bytes() == b"of another dog"


def test_a_file_that_is_missing_is_named(finished_world: Path, tmp_path: Path) -> None:
    asked = ("--image", "none.jpg", "--text", "a dog", "--model", finished_world / ".xmr" / "model")
    done = run_xmr("localize", *asked, cwd=tmp_path)
    assert done.returncode == 1
    assert "none.jpg: cannot be read (No such file or directory); check the path" in done.stderr
    assert list(tmp_path.iterdir()) == []
