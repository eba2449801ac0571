"""What leaves a store for other eyes and programs: the report, figures of maps, tables, arrays, the
earlier files.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from . import inputs
from .browser import CHROMIUM, browser
from .conftest import Template
from .harness import USAGE, tree, vaearr, zarr
from .pages import offline

RUN = ("--run", "theirs")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $$x$$"
ORANGE, BLUE = (0xE6, 0x9F, 0x00), (0x00, 0x72, 0xB2)


def headings(page: Path) -> list[str]:
    """Those of a page that loads nothing from anywhere."""
    return re.findall("<h2>(.*?)</h2>", offline(page))


@pytest.fixture(scope="module")
def report(template: Template, trained_template: Path) -> Path:
    """The report of the trained scan: its folder."""

    def make(folder: Path) -> None:
        vaearr("report", trained_template, "--out", folder / "out")

    return template("report", make) / "out"


def test_the_page_holds_all_parts_and_asks_nobody(report: Path) -> None:
    parts = (
        "Latent maps and side maps|Overview of the side maps|Strongest latents|"
        "Associations of the latents|Clusters|"
        "Comparison with principal components|Training|Reconstructions|"
        "Health of the latent space|Model|Parameters and provenance|Files"
    )
    assert headings(report / "index.html") == parts.split("|")
    assert "Left out" not in (report / "index.html").read_text(encoding="utf-8")


def test_its_numbers_for_other_programs(report: Path, trained_template: Path) -> None:
    record = json.loads((report / "report.json").read_text())
    parts = {
        "run",
        "store",
        "png",
        "left_out",
        "training_parameters",
        "versions",
        "roi",
        "rankings",
        "clusters",
    }
    assert parts | {"health", "history", "provenance"} <= set(record)
    assert record["left_out"] == {}
    assert not Path(record["store"]).is_absolute()
    assert (report / record["store"]).resolve() == trained_template.resolve()
    for path in record["png"].values():
        with Image.open(report / path) as picture:
            assert picture.format == "PNG"
    table = zarr(trained_template, "runs/vae/association")
    assert {row["target"] for row in record["rankings"]} == set(table.target.values)
    first = {(row["metric"], row["target"]): row for row in reversed(record["rankings"])}
    for (metric, target), row in first.items():
        values = table.association.sel(metric=metric, target=target).values
        strength = np.abs(values) if bool(table.signed.sel(metric=metric)) else values
        assert row["latent"] == int(np.nanargmax(strength))
        assert row["value"] == pytest.approx(float(values[row["latent"]]))
    assert record["roi"]["n_points"] == int(zarr(trained_template).roi.sum())


def test_the_first_screen_states_the_strongest_findings(
    report: Path, trained_template: Path
) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    head = text.partition("<header>")[2].partition("</header>")[0]
    stored = zarr(trained_template, "runs/vae/health").attrs["verdict"].rstrip(".")
    assert html.escape(stored)[1:] in re.findall('class="verdict">(.*?)<', head)[0]
    assert 'alt="latent maps"' in head
    sentences = re.findall('class="finding">(.*?)<', head)
    assert 1 <= len(sentences) <= 3
    for latent, r in re.findall(r"Latent (\d+) .*?Pearson r = (−?[\d.]+)", " ".join(sentences)):
        values = pd.read_csv(report / "data" / "association.csv").query("metric == 'pearson'")
        values = values[values["latent"] == int(latent)]["association"]
        assert abs(values - float(r.replace("−", "-"))).min() <= 0.005


def test_every_figure_and_table_lies_next_to_the_page(report: Path, trained_template: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="([\w./+-]+)"', text))
    files = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert links == files - {"index.html"}
    stems = [{path.stem for path in (report / kind).iterdir()} for kind in ("png", "svg")]
    assert stems[0] == stems[1] == set(json.loads((report / "report.json").read_text())["png"])
    frame, ds = pd.read_csv(report / "data" / "maps.csv"), zarr(trained_template)
    latents = ds.latents.values[frame["y"], frame["x"], 1]
    np.testing.assert_allclose(frame["latent_1"], latents, rtol=1e-5)
    np.testing.assert_array_equal(frame["grains"], ds.grains.values[frame["y"], frame["x"]])


def test_the_terms_of_the_loss_add_up(report: Path, trained_template: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    terms, loss = re.findall(r"samples: ([\d. +−-]+) = ([\d.]+) nats", text)[0]
    assert sum(map(float, terms.split(" + "))) == pytest.approx(float(loss), abs=0.2)
    history = zarr(trained_template, "runs/vae/history")
    assert float(abs(history.val_loss - float(loss)).min()) <= 0.05


def test_principal_components_stand_next_to_the_run(report: Path, trained_template: Path) -> None:
    frame = pd.read_csv(report / "data" / "comparison.csv", index_col=0)
    for run in ("vae", "pca"):
        explained = zarr(trained_template, f"runs/{run}/health").attrs["explained_variance"]
        assert frame[run].iloc[0] == pytest.approx(explained, rel=1e-4)


@pytest.mark.slow
def test_names_in_a_report_are_text_and_an_earlier_report_is_replaced(
    report: Path, tmp_path: Path
) -> None:
    files, store = inputs.scan_files(tmp_path / "files"), tmp_path / "scan.zarr"
    files["elements"].write_text(files["elements"].read_text().replace("Fe,Ni", f"{HOSTILE},<b>Ni"))
    given = ("--elements", files["elements"], "--phases", files["phase"], "--phase", f"0={HOSTILE}")
    vaearr("ingest", files["patterns"], store, *given)
    np.save(tmp_path / "theirs.npy", inputs.latents()[:, :2])
    vaearr("attach", store, tmp_path / "theirs.npy", *RUN)
    shutil.copytree(report, tmp_path / "out")  # another report, which is replaced
    (tmp_path / "out" / "png" / "old.png").touch()
    vaearr("report", store, *RUN, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "png" / "old.png").exists()
    text = offline(tmp_path / "out" / "index.html")
    assert html.escape(HOSTILE[:40]) in text  # shown as it is
    assert HOSTILE[:40] not in text
    left_out = json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]
    assert {"clusters", "training"} <= set(left_out)  # said, not hidden


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_report_draws_offline_without_errors(report: Path, tmp_path: Path) -> None:
    address = (report / "index.html").as_uri()
    with browser(tmp_path / "profile") as page:
        page.go(address)
        page.until(
            "document.readyState === 'complete' && !!window.deep && deep((e) => e.tagName === 'CANVAS').length"
        )
        assert page.errors == []
        assert [
            url for url in page.requests if not url.startswith((address, "data:", "blob:"))
        ] == []


def has(picture: Path, color: tuple[int, int, int]) -> bool:
    """Whether a line of the colour is drawn in the right half."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    return bool((pixels[:, pixels.shape[1] // 2 :] == color).all(-1).sum() > 200)


def test_a_panel_against_a_phase_shows_the_phase(report: Path) -> None:
    (phase,) = (report / "png").glob("latent_*_against_phase__*.png")
    (contrast,) = (report / "png").glob("latent_*_against_BC.png")
    assert has(phase, ORANGE)  # the latent at the points of the phase,
    assert has(phase, BLUE)  # and at those of the others
    assert not has(contrast, ORANGE)


def pdf_words(path: Path) -> list[str]:
    """The texts of a PDF figure, in the order in which they are drawn."""
    found = []
    for stream in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL):
        try:
            content = zlib.decompressobj().decompress(
                stream[1]
            )  # its last byte may be a line break too
        except zlib.error:
            continue
        for block in re.findall(rb"BT.*?ET", content, re.DOTALL):
            text = b"".join(re.findall(rb"\(((?:\\.|[^\\()])*)\)", block)).decode("latin1")
            found.append(re.sub(r"\\(.)", r"\1", text).replace("\0", ""))
    return found


def test_profiles_stand_over_the_axis_they_run_along(scan_template: Path, tmp_path: Path) -> None:
    across, along = ("--column", 2, "--column", 4.5), ("--row", 1)
    drawn = {}
    for name, options in {"columns": across, "both": (*along, *across)}.items():
        vaearr("look", "contrast", scan_template, *options, "--out", tmp_path / f"{name}.pdf")
        words = pdf_words(tmp_path / f"{name}.pdf")
        drawn[name] = [words.count("x (µm)"), words.count("y (µm)")]  # the map has one of each
        assert {"y = 1"} <= set(words) or name == "columns"
        assert {"x = 2", "x = 4.5"} <= set(words)
    assert drawn == {"columns": [1, 2], "both": [2, 2]}


@pytest.mark.slow
def test_a_scan_without_side_maps_ends_with_a_report(tmp_path: Path) -> None:
    pytest.importorskip("prefect")
    source, store = inputs.scan_files(tmp_path / "files")["patterns"], tmp_path / "scan.zarr"
    options = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}
    train = {"epochs": 1, "batch_size": 64, "device": "cpu", "precision": "float32"}
    train |= {"model": {"latent_dim": 2, "options": options}}
    settings = {"train": train, "cluster": {"method": "kmeans", "k": 3}}
    given = {"source": source, "store": store} | {
        name: json.dumps(value) for name, value in settings.items()
    }
    done = vaearr("run", "analyse-scan", *(o for k, v in given.items() for o in ("-p", f"{k}={v}")))
    assert "no band contrast, elements or phases" in done.err + done.out
    assert "Latent maps and side maps" in headings(tmp_path / "scan.reports" / "vae" / "index.html")
    left_out = json.loads((tmp_path / "scan.reports" / "vae" / "report.json").read_text())[
        "left_out"
    ]
    assert set(left_out) == {"overview", "linked", "association"}


def test_report_refusals(known_template: Path, scan_template: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "theirs" in vaearr("report", known_template, "--run", "ours", code=66).error
    assert "vaearr" in vaearr("report", scan_template, code=66).error
    assert (
        "--out" in vaearr("report", known_template, *RUN, "--out", tmp_path / "mine", code=73).error
    )
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def exported(store: Path, out: Path, *options: object) -> Path:
    vaearr("export", store, out, *RUN, *options)
    return out


def test_tables(known_template: Path, tmp_path: Path) -> None:
    ds = zarr(known_template)
    variables = [
        option
        for name in ("BC", "phase", "elements", "three", "latents_pca")
        for option in ("--variable", name)
    ]
    frame = pd.read_csv(
        exported(known_template, tmp_path / "csv", "--format", "csv", *variables)
        / "latents_theirs.csv"
    )
    latents, scores = [f"latent_{i}" for i in range(5)], [f"latents_pca_{i}" for i in range(4)]
    assert list(frame) == ["x", "y", *latents, "BC", "phase", "Fe", "Ni", "three", *scores]
    there = ds.roi_theirs.values.astype(bool)
    assert len(frame) == there.sum() == 372
    row, column = np.nonzero(there)
    np.testing.assert_array_equal(frame[["x", "y"]], np.stack([column, row], 1))  # step numbers
    np.testing.assert_allclose(frame[latents], inputs.latents()[there.ravel()], rtol=1e-6)
    np.testing.assert_array_equal(frame["phase"], ds.phase.values[there])
    assert (frame["phase"] == -1).any()  # not known stays -1
    np.testing.assert_array_equal(frame["three"], ds.three.values[there])
    np.testing.assert_allclose(frame[scores], ds.latents_pca.values[there], rtol=1e-5)
    pytest.importorskip("pyarrow")
    other = pd.read_parquet(
        exported(known_template, tmp_path / "parquet", "--format", "parquet", *variables)
        / "latents_theirs.parquet"
    )
    pd.testing.assert_frame_equal(frame, other, check_dtype=False, rtol=1e-6)


def test_arrays_and_pictures(known_template: Path, tmp_path: Path) -> None:
    out = exported(known_template, tmp_path / "npy", "--format", "npy")
    full, inside = np.load(out / "latents_full.npy"), np.load(out / "latents_roi.npy")
    there = np.isfinite(full).all(1)
    assert (~there).nonzero()[0].tolist() == [y * inputs.NX + x for y, x in inputs.MISSING]
    np.testing.assert_array_equal(full[there], inputs.latents()[there])
    np.testing.assert_array_equal(inside, full[there])
    coords = pd.read_csv(out / "coords.csv")
    assert list(coords) == ["x", "y"]
    np.testing.assert_array_equal(coords["x"] + inputs.NX * coords["y"], np.arange(len(full)))
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "coords_roi.csv"), coords[there].reset_index(drop=True)
    )
    maps = [option for name in ("BC", "three", "elements") for option in ("--variable", name)]
    out = exported(known_template, tmp_path / "png", "--format", "png", *maps)
    assert sorted(path.name for path in out.iterdir()) == [
        "BC.png",
        "Fe.png",
        "Ni.png",
        "three.png",
    ]
    out = exported(known_template, tmp_path / "pdf", "--format", "pdf")
    assert [path.name for path in out.iterdir()] == ["latents_theirs.pdf"]
    assert (out / "latents_theirs.pdf").read_bytes().startswith(b"%PDF")


CHOSEN = ("--latent", 3, "--latent", 1)


def test_chosen_latents_of_pictures_of_other_maps_are_refused(
    known_template: Path, tmp_path: Path
) -> None:
    options = ("--format", "png", "--variable", "BC", "--latent", 3)
    error = vaearr(
        "export", known_template, tmp_path / "out", "--run", "theirs", *options, code=USAGE
    ).error
    assert "the pictures are of other maps" in error


LATENTS = ("--variable", "latents_theirs")


@pytest.mark.parametrize("format_", ["csv", "parquet", "npy", "png", "pdf", "seed0"])
def test_chosen_latents_hold_for_every_format(
    known_template: Path, tmp_path: Path, format_: str
) -> None:
    if format_ == "parquet":
        pytest.importorskip("pyarrow")
    options = LATENTS if format_ in ("png", "pdf") else ()
    out = exported(known_template, tmp_path / "out", "--format", format_, *CHOSEN, *options)
    if format_ in ("csv", "parquet"):
        read = pd.read_csv if format_ == "csv" else pd.read_parquet
        assert list(read(out / f"latents_theirs.{format_}")) == ["x", "y", "latent_3", "latent_1"]
    elif format_ == "npy":
        np.testing.assert_array_equal(
            np.load(out / "latents_roi.npy"),
            zarr(known_template)
            .latents_theirs.values[..., [3, 1]]
            .reshape(-1, 2)[zarr(known_template).roi_theirs.values.ravel().astype(bool)],
        )
    elif format_ == "seed0":
        assert set(pd.read_csv(out / "bandcontrast_latent_scores.csv")["dim"]) == {1, 3}
    else:
        files = sorted(path.name for path in out.iterdir())
        assert files == [f"latents_theirs_{i}.{format_}" for i in (1, 3)]


SCORES = ["pearson", "spearman", "kendall", "mi", "dcorr", "hsic", "pp_spatial"]
HEAD = {"roi", "metrics", "rankings"}


@pytest.fixture(scope="module")
def earlier(template: Template, known_template: Path) -> Path:
    """The files of the earlier program."""

    def make(folder: Path) -> None:
        exported(known_template, folder / "out", "--format", "seed0")

    return template("earlier", make) / "out"


def test_the_earlier_programs_files(earlier: Path) -> None:
    tags = ["dbscan_eps*_m8", "gmm_k3", "gmm_k3_three"]
    eps = json.loads(next(earlier.glob("cluster_report__dbscan*.json")).read_text())["eps"]
    tags[0] = f"dbscan_eps{eps:.3g}_m8"
    clusters = [
        name
        for tag in tags
        for name in (
            f"cluster_assignments__{tag}.csv",
            f"cluster_report__{tag}.json",
            f"cluster_latent_bc__{tag}.png",
        )
    ]
    assert {path.name for path in earlier.iterdir()} == {
        *("bandcontrast_latent_scores.csv", "report_bandcontrast_multi_metric.json"),
        *("element_latent_scores.csv", "report_elements_multi_metric__sum-auto.json"),
        *clusters,
    }


def test_the_training_history_in_the_earlier_form(trained_template: Path, tmp_path: Path) -> None:
    vaearr("export", trained_template, tmp_path / "out", "--format", "seed0")
    frame = pd.read_csv(tmp_path / "out" / "training_history.csv")
    record = json.loads((tmp_path / "out" / "training_history.json").read_text())
    history = zarr(trained_template, "runs/vae/history")
    assert (
        list(frame)
        == list(record)
        == [
            "epoch",
            *(
                "train_loss",
                "train_recon_loss",
                "train_kl_loss",
                "val_loss",
                "val_recon_loss",
                "val_kl_loss",
            ),
            "learning_rate",
        ]
    )
    assert record["epoch"] == history.epoch.values.tolist()
    np.testing.assert_allclose(frame["train_kl_loss"], history.kl)
    np.testing.assert_allclose(record["val_loss"], history.val_loss)


@pytest.mark.parametrize(
    ("table", "report", "own"),
    [
        (
            "bandcontrast_latent_scores.csv",
            "report_bandcontrast_multi_metric.json",
            {"target"},
        ),
        (
            "element_latent_scores.csv",
            "report_elements_multi_metric__sum-auto.json",
            {"synth_mode", "synth_tag", "elements", "rgb_elements", "weights"},
        ),
    ],
)
def test_scores_in_the_earlier_form(earlier: Path, table: str, report: str, own: set[str]) -> None:
    frame, record = pd.read_csv(earlier / table), json.loads((earlier / report).read_text())
    assert list(frame) == ["dim", *SCORES]
    assert frame["pearson"].abs().is_monotonic_decreasing
    assert sorted(frame["dim"]) == list(range(5))
    assert set(record) == HEAD | own
    assert record["metrics"] == SCORES
    assert record["roi"]["x_range"] == [0, inputs.NX]
    assert record["roi"]["y_range"] == [0, inputs.NY]
    for metric in SCORES:
        assert [set(row) for row in record["rankings"][metric]] == [{"dim", "score"}] * 3
        best = frame.loc[frame[metric].abs().idxmax()]
        assert abs(record["rankings"][metric][0]["score"]) == pytest.approx(abs(best[metric]))


def test_scores_are_those_of_the_metrics(earlier: Path, known_template: Path) -> None:
    kept = zarr(known_template, "runs/theirs/association").association.sel(target="BC")
    frame = pd.read_csv(earlier / "bandcontrast_latent_scores.csv").sort_values("dim")
    for metric in ("pearson", "spearman"):
        np.testing.assert_allclose(frame[metric], kept.sel(metric=metric), rtol=1e-9)


def test_clusterings_alike_in_method_and_number_stand_side_by_side(
    earlier: Path, known_template: Path
) -> None:
    ds = zarr(known_template)
    for name, tag in (("contrasts", "gmm_k3"), ("three", "gmm_k3_three")):
        frame = pd.read_csv(earlier / f"cluster_assignments__{tag}.csv")
        record = json.loads((earlier / f"cluster_report__{tag}.json").read_text())
        assert list(frame) == ["x", "y", "latent", "bandcontrast", "cluster"]
        assert record["variable"] == name
        assert record["assignments_csv"] == f"cluster_assignments__{tag}.csv"
        assert record["figure"] == f"cluster_latent_bc__{tag}.png"
        assert {"method", "k", "scores", "n_points", "cluster_colors", "latent_dim"} <= set(record)
        assert (record["method"], record["k"], record["n_points"]) == ("gmm", 3, len(frame))
        np.testing.assert_array_equal(frame["cluster"], ds[name].values[frame["y"], frame["x"]])
        np.testing.assert_array_equal(frame["bandcontrast"], ds.BC.values[frame["y"], frame["x"]])


def test_nothing_is_overwritten(known_template: Path, tmp_path: Path) -> None:
    out = exported(known_template, tmp_path / "out", "--format", "csv")
    before = tree(out)
    exported(known_template, out, "--format", "csv")  # the same content stays
    error = vaearr(
        "export", known_template, out, *RUN, "--format", "csv", "--latent", 1, code=73
    ).error
    assert "latents_theirs.csv" in error
    assert tree(out) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--format", "cvs"), 2, "'csv'"),
        (("--format", "csv", "--variable", "BD"), 66, "'BC'"),
        (("--format", "csv", "--latent", 7), 66, "0 to 4"),
        (("--format", "csv", "--run", "ours"), 66, "theirs"),
        (("--format", "npy", "--variable", "BC"), 2, "choose csv or png"),
    ],
)
def test_export_refusals(
    known_template: Path, tmp_path: Path, options: tuple[object, ...], code: int, words: str
) -> None:
    run = () if "--run" in options else RUN
    assert (
        words in vaearr("export", known_template, tmp_path / "out", *run, *options, code=code).error
    )
    assert not (tmp_path / "out").exists()


def test_no_export_into_a_store(known_store: Path) -> None:
    before = tree(known_store)
    assert "outside" in vaearr("export", known_store, known_store / "tables", *RUN, code=73).error
    assert tree(known_store) == before
